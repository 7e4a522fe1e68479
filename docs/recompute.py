"""Recomputes a report's figures from the files of its run, by other means than tuneoff's.

    python docs/recompute.py RUN_DIR [--data DIR] [--json]

It needs numpy and scipy and nothing of tuneoff, so it can be read, and run, by somebody who does
not trust tuneoff. It says how many figures of each kind it compared with `results.json`, and each
that is another one; numbers must agree to within 1e-9 of their size. The definitions are those of
docs/scoring.md, docs/statistics.md and docs/money.md. `--data` is the folder of
`<db_id>/*.sqlite` where the run does not keep its databases. Exit code 1: something disagrees;
2: bad input.

What it takes as given: the bake-off file (`settings`), the rows of the run directory, prices of
units (`cost.unit_prices`, and the ledger's), end dates, who answers (`place`), where break-even
curves have their points. Row scores come from `scores.jsonl`, but for those that
`recomputing/answers.py` and `sql.py` make themselves. Not checked: hashes (but those of databases),
versions, sentences, names of models, prompts, `data`, `backend`, `agreement`, `warning`,
`price_sources`, `caveats`, which training example is nearest (`baselines`), and keys that are not
known here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from recomputing import money, ranks, scores
from recomputing.run import BadInput, Findings, Run


def recompute(path, data=None):
    """Holds every figure of a run's results.json against one made here."""
    run, findings = Run(path), Findings()
    databases = scores.find_databases(run, data, findings)
    scores.remake_rows(run, databases, findings)
    for contender in run.contenders:
        scores.hold_scores(run, contender, findings)
    scores.hold_baselines(run, findings)
    scores.hold_unread(run, findings)
    scores.hold_pairs(run, findings)
    money.hold_money(run, findings)
    ranks.hold_ranks(run, findings)
    return findings


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Recompute a report's figures.")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--data", help="the folder of <db_id>/*.sqlite")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    try:
        found = recompute(given.run_dir, given.data)
    except BadInput as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    wrong = found.count_wrong()
    if given.json:
        print(json.dumps({
            "compared": found.compared, "disagree": wrong, "disagreements": found.wrong,
            "not_recomputed": found.not_made,
        }, indent=2))  # fmt: skip
    else:
        print_table(found, wrong)
    return 1 if found.wrong else 0


def print_table(found, wrong):
    """A line for each kind of figure, each disagreement, and each reason for what is left."""
    width = max(map(len, found.compared))
    print(f"{'':{width}}  compared     agree")
    for kind, count in sorted(found.compared.items()):
        print(f"{kind:{width}}  {count:8,}  {count - wrong.get(kind, 0):8,}")
    print(f"{'all':{width}}  {found.compared.total():8,}  {found.agreeing():8,}")
    for each in found.wrong:
        print(
            f"{each['kind']}: {each['where']}: the report has {each['reported']}, "
            f"recomputed {each['recomputed']}"
        )
    for reason, count in found.not_made.items():
        print(f"not recomputed: {count:,} {reason}")


if __name__ == "__main__":
    sys.exit(main())
