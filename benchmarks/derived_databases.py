"""Do derived databases expose wrong queries, and let harmless rewrites of right ones pass?

Data set: Spider's dev references and databases (TUNEOFF_DATA, or ../shared/data), scored in strict
mode by the scorer itself.
Wrong queries: each reference is spoilt in one place (a condition dropped, another column, `>` for
`>=` and the like, a lost DISTINCT). Mutants that give the right result on the original are
the ones that one database lets through; they are run on `--databases` derived ones. A mutant
that nothing exposes may be equivalent. It counts as not equivalent when one of `--witnesses`
other derived databases (of another seed) or one of the derived ones tells it apart.
Harmless rewrites: each reference is changed by rules that leave its question as it is: a further
key behind ORDER BY, rows in another order where none is asked for, other rows of a LIMIT without
ORDER BY, tables joined the other way round, conditions turned round, the query as a table.
Prints one JSON document; its examples name queries that failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from sqlglot import exp, parse_one

from tuneoff.records import ScoredRow
from tuneoff.scoring.base import Options, ScoringInput
from tuneoff.scoring.sql.derived_databases import derive_suites
from tuneoff.scoring.sql.sandbox import connect
from tuneoff.scoring.sql.scorer import score_rows

ROOT = Path(__file__).parent.parent
NEIGHBOUR = {exp.GT: exp.GTE, exp.GTE: exp.GT, exp.LT: exp.LTE, exp.LTE: exp.LT}
TURNED = {
    exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE, exp.EQ: exp.EQ,
    exp.NEQ: exp.NEQ, exp.And: exp.And, exp.Or: exp.Or,
}  # fmt: skip
EXECUTION, SUITE = "execution_accuracy", "test_suite_accuracy"
EXAMPLES = 20


class Pair(NamedTuple):
    """An answer to a reference, and how it was made of it."""

    db_id: str
    kind: str
    reference: str
    answer: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--databases", type=int, default=10, help="derived from each original")
    parser.add_argument("--witnesses", type=int, default=60, help="others, of another seed")
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON")
    arguments = parser.parse_args()
    data = Path(os.environ.get("TUNEOFF_DATA") or ROOT.parent / "shared" / "data") / "spider"
    lines = (data / "dev_gold.tsv").read_text(encoding="utf-8").splitlines()
    golds = sorted({(line.split("\t")[1].strip(), line.split("\t")[0]) for line in lines})
    with TemporaryDirectory() as folder:
        derived, witnesses = Path(folder) / "derived", Path(folder) / "witnesses"
        derive_suites(data / "databases", golds, derived, arguments.databases, seed=0)
        derive_suites(data / "databases", golds, witnesses, arguments.witnesses, seed=1)
        found = {
            **measure_mutants(golds, data / "databases", derived, witnesses),
            "rewrites": measure_rewrites(golds, data / "databases", derived),
        }
    print(json.dumps({**vars(arguments), **found}, indent=2))


def score(pairs: list[Pair], databases: Path, derived: Path) -> list[ScoredRow]:
    """Return each pair's scores, in order."""
    rows = [
        ScoringInput(str(number), pair.reference, pair.answer, {"db_id": pair.db_id})
        for number, pair in enumerate(pairs)
    ]
    return list(score_rows(rows, Options(databases, derived, metrics=(EXECUTION, SUITE))))


def measure_mutants(
    golds: list[tuple[str, str]], databases: Path, derived: Path, witnesses: Path
) -> dict[str, Any]:
    """Count mutants by kind."""
    pairs = [
        Pair(db_id, kind, gold, mutant)
        for db_id, gold in golds
        for kind, mutant in mutants(gold, read_columns(databases, db_id))
    ]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    left: list[Pair] = []
    for pair, row in zip(pairs, score(pairs, databases, derived), strict=True):
        count = counts[pair.kind]
        count["mutants"] += 1
        count["undetected on the original"] += int(row.scores[EXECUTION])
        if row.scores[EXECUTION] and not row.scores[SUITE]:
            count["exposed by derived databases"] += 1
            count["not equivalent"] += 1
        elif row.scores[EXECUTION]:
            left.append(pair)
    never: list[Pair] = []
    for pair, row in zip(left, score(left, databases, witnesses), strict=True):
        if row.scores[SUITE]:
            never.append(pair)
        else:
            counts[pair.kind]["not equivalent"] += 1
    total = sum(counts.values(), Counter())
    return {
        "share_exposed_of_not_equivalent": round(
            total["exposed by derived databases"] / total["not equivalent"], 4
        ),
        "total": dict(total),
        "by_kind": {kind: dict(count) for kind, count in sorted(counts.items())},
        "never_told_apart": [pair._asdict() for pair in never[:EXAMPLES]],
    }


def measure_rewrites(
    golds: list[tuple[str, str]], databases: Path, derived: Path
) -> dict[str, Any]:
    """Count harmless rewrites by kind, and those that are called right."""
    pairs = [
        Pair(db_id, kind, reference, answer)
        for db_id, gold in golds
        for kind, reference, answer in rewrites(gold, read_columns(databases, db_id))
    ]
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failed: list[dict[str, str]] = []
    for pair, row in zip(pairs, score(pairs, databases, derived), strict=True):
        counts[pair.kind]["rewrites"] += 1
        counts[pair.kind]["right in strict mode"] += int(row.scores[EXECUTION])
        counts[pair.kind]["right in suites"] += int(row.scores[SUITE])
        if not row.scores[SUITE] and len(failed) < EXAMPLES:
            failed.append({**pair._asdict(), "verdict": row.verdict})
    total = sum(counts.values(), Counter())
    return {
        "share_right_in_strict_mode": round(total["right in strict mode"] / total["rewrites"], 4),
        "share_right_in_suites": round(total["right in suites"] / total["rewrites"], 4),
        "total": dict(total),
        "by_kind": {kind: dict(count) for kind, count in sorted(counts.items())},
        "failed": failed,
    }


def read_columns(databases: Path, db_id: str) -> dict[str, list[str]]:
    """Return the columns of each table of a database."""
    return connect(str(databases / db_id / f"{db_id}.sqlite")).columns.by_table


def mutants(gold: str, columns: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """(kind, query) of each way to spoil a reference in one place."""
    rng = random.Random(gold)
    tree = parse_one(gold, read="sqlite")
    for index, node in enumerate(list(tree.walk())):
        copy = tree.copy()
        twin = list(copy.walk())[index]
        if isinstance(node, exp.And):
            for side in ("left", "right"):
                copy = tree.copy()
                twin = list(copy.walk())[index]
                twin.replace(getattr(twin, side))
                yield "condition dropped", copy.sql("sqlite")
        elif isinstance(node, exp.Where) and not isinstance(node.this, (exp.And, exp.Or)):
            twin.pop()
            yield "condition dropped", copy.sql("sqlite")
        elif type(node) in NEIGHBOUR:
            twin.replace(NEIGHBOUR[type(node)](this=twin.this, expression=twin.expression))
            yield "neighbouring comparison", copy.sql("sqlite")
        elif isinstance(node, exp.Select) and node.args.get("distinct"):
            twin.set("distinct", None)
            yield "DISTINCT lost", copy.sql("sqlite")
        elif isinstance(node, exp.Distinct) and isinstance(node.parent, exp.Count):
            twin.replace(twin.expressions[0])
            yield "DISTINCT lost", copy.sql("sqlite")
        elif isinstance(node, exp.Column) and not node.this.args.get("quoted"):
            name = node.name.lower()
            homes = [names for names in columns.values() if name in names]
            others = sorted({other for names in homes for other in names} - {name})
            if others:
                twin.set("this", exp.to_identifier(rng.choice(others)))
                yield "another column", copy.sql("sqlite")


def rewrites(gold: str, columns: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, reference, answer) of each way to ask a reference's question otherwise."""
    rng = random.Random(gold)
    tree = parse_one(gold, read="sqlite")
    is_select, is_limited = isinstance(tree, exp.Select), tree.args.get("limit") is not None
    if tree.args.get("order"):
        for key in further_keys(tree, columns, rng):
            yield "a further key", gold, f"{ordered_by(tree, key)}"
            yield "a further key, descending", gold, f"{ordered_by(tree, key, desc=True)}"
    elif not is_limited:
        yield "rows in another order", gold, ordered_by(tree, exp.Literal.number(1), desc=True)
        yield "the query as a table", gold, f"SELECT * FROM ({text(tree)})"
        answer = ordered_by(tree, exp.Literal.number(1), desc=True)
        yield "other rows of LIMIT", f"{text(tree)} LIMIT 2", f"{answer} LIMIT 2"
    for index, node in enumerate(list(tree.walk())):
        if type(node) in TURNED:
            copy = tree.copy()
            twin = list(copy.walk())[index]
            twin.replace(TURNED[type(node)](this=twin.expression, expression=twin.this))
            yield "a condition turned round", gold, text(copy)
    if is_select and (swapped := join_other_way(tree)) is not None:
        yield "tables joined the other way", gold, swapped


def text(tree: exp.Expression) -> str:
    return tree.sql(dialect="sqlite")


def ordered_by(tree: exp.Expression, key: exp.Expression, desc: bool = False) -> str:
    """Return a query with a further key of ORDER BY."""
    copy = tree.copy()
    order = copy.args.get("order") or exp.Order(expressions=[])
    order.append("expressions", exp.Ordered(this=key.copy(), desc=desc, nulls_first=not desc))
    copy.set("order", order)
    return text(copy)


def further_keys(
    tree: exp.Expression, columns: dict[str, list[str]], rng: random.Random
) -> Iterator[exp.Expression]:
    """Yield keys that break a reference's ties: an output and, where rows stay what they are, a
    column that is not selected."""
    if not any(each.find(exp.Star) for each in tree.selects if not each.find(exp.AggFunc)):
        yield exp.Literal.number(rng.randint(1, len(tree.selects)))
    if not isinstance(tree, exp.Select) or tree.args.get("distinct"):
        return
    group = tree.args.get("group")
    if group is not None:
        yield group.expressions[0]
        return
    tables = list(tree.args.get("from_", tree.args.get("from")).find_all(exp.Table))
    names = columns.get(tables[0].name.lower(), ())
    if names and not any(each.find(exp.AggFunc) for each in tree.selects):
        yield exp.column(rng.choice(names), tables[0].alias_or_name, quoted=True)


def join_other_way(tree: exp.Expression) -> str | None:
    """Return a query whose two tables have changed places; None where it has not two, or where a
    column outside GROUP BY depends on which row comes first."""
    joins, group = tree.args.get("joins") or [], tree.args.get("group")
    from_ = tree.args.get("from_", tree.args.get("from"))
    if len(joins) != 1 or not joins[0].args.get("on") or joins[0].side or tree.find(exp.Star):
        return None
    keys = {text(each).lower() for each in group.expressions} if group is not None else set()
    for each in tree.selects if group is not None or tree.find(exp.AggFunc) else ():
        if not each.find(exp.AggFunc) and text(each.unalias()).lower() not in keys:
            return None
    copy = tree.copy()
    from_, join = copy.args.get("from_", copy.args.get("from")), copy.args["joins"][0]
    first, second = from_.this.copy(), join.this.copy()
    from_.set("this", second)
    join.set("this", first)
    return text(copy)


if __name__ == "__main__":
    main()
