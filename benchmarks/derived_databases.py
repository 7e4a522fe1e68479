"""Do derived databases expose wrong queries that the original database does not tell apart?

Data set: Spider's dev references and databases (TUNEOFF_DATA, or ../shared/data).
Pattern: each reference is spoilt in one place (a condition dropped, another column, `>` for
`>=` and the like, a lost DISTINCT). Mutants that give the right result on the original are
the ones that one database lets through; they are run on `--databases` derived ones. A mutant
that nothing exposes may be equivalent. It counts as not equivalent when one of `--witnesses`
other derived databases (of another seed) or one of the derived ones tells it apart.
Prints one JSON document.
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
from typing import Any

from sqlglot import exp, parse_one

from tuneoff.scoring.sql.derive import derive_suites
from tuneoff.scoring.sql.execution import difference, is_ordered
from tuneoff.scoring.sql.sandbox import Stopped, Table, connect, select

ROOT = Path(__file__).parent.parent
NEIGHBOUR = {exp.GT: exp.GTE, exp.GTE: exp.GT, exp.LT: exp.LTE, exp.LTE: exp.LT}
SECONDS, ROWS = 5.0, 100_000


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
        found = measure(golds, data / "databases", derived, witnesses)
    print(json.dumps({**vars(arguments), **found}, indent=2))


def measure(
    golds: list[tuple[str, str]], originals: Path, derived: Path, witnesses: Path
) -> dict[str, Any]:
    """Counts by kind of mutant."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    examples: list[dict[str, str]] = []
    for db_id, gold in golds:
        own = originals / db_id / f"{db_id}.sqlite"
        columns = connect(str(own)).columns.by_table
        for kind, mutant in mutants(gold, columns):
            count = counts[kind]
            count["mutants"] += 1
            if not same(own, gold, mutant):
                continue
            count["undetected on the original"] += 1
            exposed = tells_apart(derived / db_id, gold, mutant)
            witnessed = exposed or tells_apart(witnesses / db_id, gold, mutant)
            count["exposed by derived databases"] += exposed
            count["not equivalent"] += witnessed
            if not witnessed and len(examples) < 20:
                examples.append({"db_id": db_id, "kind": kind, "gold": gold, "mutant": mutant})
    total = sum(counts.values(), Counter())
    return {
        "share_exposed_of_not_equivalent": round(
            total["exposed by derived databases"] / total["not equivalent"], 4
        ),
        "total": dict(total),
        "by_kind": {kind: dict(count) for kind, count in sorted(counts.items())},
        "never_told_apart": examples,
    }


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


def result(path: Path, sql: str, backwards: bool = False) -> Table | None:
    try:
        return select(connect(str(path), backwards=backwards), sql, SECONDS, ROWS)
    except Stopped:
        return None


def same(path: Path, gold: str, mutant: str) -> bool:
    """Whether a database does not tell a mutant from its reference; one that does not run is
    told apart."""
    expected, given = result(path, gold), result(path, mutant)
    assert expected is not None, (path, gold)
    return given is not None and difference(expected, given, is_ordered(gold)) is None


def tells_apart(folder: Path, gold: str, mutant: str) -> bool:
    """Whether some database does, of those on which the reference's own result is settled."""
    return any(
        not same(path, gold, mutant) for path in sorted(folder.iterdir()) if settled(path, gold)
    )


def settled(path: Path, gold: str) -> bool:
    forwards, backwards = result(path, gold), result(path, gold, backwards=True)
    assert forwards is not None, (path, gold)
    assert backwards is not None, (path, gold)
    return difference(forwards, backwards, is_ordered(gold)) is None


if __name__ == "__main__":
    main()
