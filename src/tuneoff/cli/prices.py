"""Commands of prices."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from tuneoff.cli.console import Json, print_json

PricesFile = Annotated[
    Path | None, typer.Option("--prices", help="Your own prices, before the shipped ones.")
]
AsOf = Annotated[
    datetime.datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="Prices of this day [default: today]."),
]


def prices(
    context: typer.Context, own: PricesFile = None, as_of: AsOf = None, as_json: Json = False
) -> None:
    """Show the price book: USD per million tokens and per hour, with dates and sources."""
    from tuneoff.costs.price_check import list_prices, render_prices

    if context.invoked_subcommand is not None:
        if own or as_of or as_json:
            raise typer.BadParameter(f"put options behind `{context.invoked_subcommand}`.")
        return
    price_list = list_prices(own, as_of.date() if as_of else None)
    if as_json:
        print_json(price_list)
    else:
        typer.echo(render_prices(price_list))


def check_prices(own: PricesFile = None, as_of: AsOf = None, as_json: Json = False) -> None:
    """List what is stale, has ended or ends soon; two prices of one day are wrong (exit code 2)."""
    from tuneoff.costs.price_check import collect_findings

    result = collect_findings(own, as_of.date() if as_of else None)
    if as_json:
        print_json(result)
    else:
        for each in result["findings"]:
            typer.echo(f"{each['kind']}: {each['sentence']}")
        if not result["ok"]:
            typer.echo("The price book is wrong.")
        elif result["findings"]:
            typer.echo("No price contradicts another; look again at those above.")
        else:
            typer.echo("The price book is fine.")
    if not result["ok"]:
        raise typer.Exit(2)
