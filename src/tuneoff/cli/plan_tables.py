"""A plan in a terminal: one row per contender, then notes."""

from __future__ import annotations

from tuneoff.bakeoff.plan.schema import MoreSeeds, Plan, PlannedContender
from tuneoff.report.comparisons import join_names
from tuneoff.scoring.margins import MarginExamples
from tuneoff.scoring.power import MEASURED_DEVIATION

GIB = 2**30


def render_plan(plan: Plan) -> str:
    """Render the plan as plain text."""
    from rich.table import Table

    from tuneoff.cli.tables import render_plain

    shown = Table(title=f"{plan.task}, prices of {plan.as_of}", title_justify="left")
    shown.add_column("contender", no_wrap=True)
    for column in ("examples", "epochs", "tokens/epoch", "hours", "GiB", "training", "answering"):
        shown.add_column(column, justify="right")
    shown.add_column("ends", no_wrap=True)
    for contender in plan.contenders:
        shown.add_row(*_render_cells(contender))
    return render_plain(shown) + "".join(f"{line}\n" for line in _render_notes(plan))


def _render_cells(contender: PlannedContender) -> list[str]:
    """Return a contender's row."""
    training = contender.training
    money = [_format_usd(training.usd if training else None), _format_usd(contender.answering_usd)]
    ends = str(contender.ends or ("no end" if contender.place == "own" else ""))
    if training is None:
        # Not "not tuned": it may have been, before or elsewhere.
        return [contender.name, "", "", "", "", "", contender.id, money[1], ends]
    return [
        contender.name,
        f"{training.examples:,}",
        f"{training.epochs:g}",
        "–" if training.tokens_per_epoch is None else f"{training.tokens_per_epoch:,}",
        "–" if training.seconds is None else f"{training.seconds / 3600:.2f}",
        "–" if training.memory_bytes is None else f"{training.memory_bytes / GIB:.1f}",
        *money,
        ends,
    ]


def _format_usd(usd: float | None) -> str:
    """Return USD as text."""
    if usd is None:
        return "–"
    return f"${usd:,.2f}" if usd >= 0.01 or usd == 0 else "under $0.01"


def _render_notes(plan: Plan) -> list[str]:
    """Return the notes below the table."""
    notes = [f"{c.name}: {c.training.basis}." for c in plan.contenders if c.training]
    notes += [
        f"{c.name}: {line.removeprefix(f'contender {c.name}: ')}"
        for c in plan.contenders
        for line in c.warnings
    ]
    notes.append(_explain_money(plan))
    if plan.smallest_detectable_difference is None:
        notes.append("The test set can show no difference, however large.")
    else:
        few, many = plan.smallest_detectable_difference, plan.smallest_detectable_difference_of_many
        shown = f"{100 * few:.1f}" + (f" to {100 * many:.1f}" if many else "")
        notes.append(
            f"The test set can show differences from {shown} points (15% to 35% of answers differ)."
        )
    notes.append(_explain_margin(plan.margin))
    if plan.more_seeds is not None:
        notes += _explain_seeds(plan.more_seeds)
    return notes


def _explain_margin(margin: MarginExamples) -> str:
    """Explain how many examples a margin takes."""
    clusters = ""
    if margin.clusters is not None:
        clusters = f" in {_format_range(margin.clusters)} clusters like these"
    points = f"{margin.points:g} point{'s' * (margin.points != 1)}"
    return (
        f"It takes {_format_range(margin.not_worse)} test examples{clusters} to show that an "
        "equal model "
        f"is not worse by {points} (80% power), and {_format_range(margin.same)} to show that it "
        "is the "
        f"same within {points}; there are {margin.examples:,}."
    )


def _explain_seeds(more: MoreSeeds) -> list[str]:
    """Explain what one training each leaves open, and what seeds would take and bring."""
    cost = [f"{more.seconds / 3600:.2f} h"] if more.seconds is not None else ["hours not known"]
    cost += [_format_usd(more.usd)] if more.usd is not None else []
    few = more.smallest_detectable_difference
    many = more.smallest_detectable_difference_of_many
    brings = "; this test set is too small for them to show any."
    if few is not None:
        shown = f"{100 * few:.1f}" + (f" to {100 * many:.1f}" if many else "")
        brings = f", and can show differences between ways of training from {shown} points."
    one = len(more.contenders) == 1
    who = f"of {more.contenders[0]}" if one else f"each of {join_names(more.contenders)}"
    return [
        f"One training {who} says little about the way of training: another seed may move a score "
        f"by about {100 * MEASURED_DEVIATION:g} points (measured on ViGGO).",
        f"seeds: {list(more.seeds)} for {'it' if one else 'each'} takes "
        f"{more.trainings} more trainings ({', '.join(cost)}){brings}",
    ]


def _format_range(values: tuple[int, int]) -> str:
    """Return two numbers as a range."""
    return f"{values[0]:,} to {values[1]:,}"


def _explain_money(plan: Plan) -> str:
    """Explain the expected cost and the maximum bill in one sentence.

    Only the maximum is compared with the budget.
    """
    line = (
        f"As far as prices are known, {_format_usd(plan.total_usd)} together is expected, and "
        "providers "
        f"can bill up to {_format_usd(plan.most_usd)} (today's prices), which `tuneoff run` asks "
        "leave for"
    )
    if plan.budget_usd is None:
        return f"{line}."
    if plan.is_over_budget:
        return f"{line}: over the budget of {_format_usd(plan.budget_usd)}, so it refuses."
    return f"{line}: within the budget of {_format_usd(plan.budget_usd)}."
