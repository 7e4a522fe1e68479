"""What `tuneoff parity` prints: outcomes, scores, flips, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.cli.tables import render_plain
from tuneoff.report import format as f
from tuneoff.scoring.power import describe_units

# Max characters of a text on one line.
MAX_LINE_LETTERS = 100


LEFT_OUT_TEMPLATES = {
    "reference_only": "ids in {reference} only",
    "candidate_only": "ids in {candidate} only",
    "no_score": "ids without a score on one side (the judge did not say)",
    "unusable_reference": "ids whose reference cannot be used",
}


def render_parity(result: Mapping[str, Any]) -> str:
    """Return the result of `check_parity` as text."""
    reference, candidates = result["reference"], result["candidates"]
    lines = [each["sentence"] for each in candidates] + ["", _render_scores(result).rstrip()]
    for each in candidates:
        lines += ["", *_list_flips(each, reference["name"], result["metric"])]
    lines += [line for each in candidates for line in _list_left_out(each, reference["name"])]
    lines += [line for side in (reference, *candidates) for line in _list_errors(side, result)]
    lines += [f"warning: {each}" for each in result["warnings"]]
    return "\n".join(map(f.clean, lines))


def _render_scores(result: Mapping[str, Any]) -> str:
    """Return the table of scores."""
    from rich.table import Table
    from rich.text import Text

    sides = [result["reference"], *result["candidates"]]
    counts = sorted({each["n"] for each in result["candidates"]})
    count = " to ".join(f.count(n) for n in (counts[0], counts[-1])[: len(counts)])
    key = f", in {describe_units(result['candidates'][0]['units'], result['cluster'])}"
    title = f"{count} example{'s' * (counts != [1])} in common{key if result['cluster'] else ''}"
    shown = Table(title=Text(title), title_justify="left")
    shown.add_column("metric")
    for each in sides:
        shown.add_column(Text(f.clean(each["name"])), justify="right", overflow="fold")
    for metric in result["reference"]["scores"]:
        values = [each["scores"].get(metric) for each in sides]
        share = f.is_share(*(each["value"] for each in values if each))
        shown.add_row(metric, *(_format_score(each, share) for each in values))
    return render_plain(shown)


def _format_score(score: Mapping[str, Any] | None, share: bool) -> str:
    """Return a score with its bounds."""
    if score is None:
        return f.MISSING
    bounds = f.interval(score["low"], score["high"], share)
    return f"{f.score(score['value'], share)} {bounds}".rstrip()


def _list_flips(candidate: Mapping[str, Any], reference: str, metric: str) -> list[str]:
    """Return the counts of flips, and an example of each direction."""
    flips, name = candidate["flips"], candidate["name"]
    if "both" in flips:
        counts = (
            f"{metric}: both right {f.count(flips['both'])}, only {reference} "
            f"{f.count(flips['only_reference'])}, only {name} {f.count(flips['only_candidate'])}, "
            f"neither {f.count(flips['neither'])}."
        )
    else:
        counts = (
            f"{metric} of {name}: higher {f.count(flips['higher'])}, lower "
            f"{f.count(flips['lower'])}, equal {f.count(flips['equal'])}."
        )
    lines = [counts]
    for kind, example in candidate["examples"].items():
        texts = [
            ("asked", example["inputs"]),
            ("reference", example["reference"]),
            (reference, example["reference_answer"]),
            (name, example["candidate_answer"]),
        ]
        if not example["inputs"]:
            del texts[0]
        width = max(len(label) for label, _ in texts)
        scores = ""
        if "both" not in flips:  # the texts do not show them
            old, new = (f"{example[f'{side}_score']:.3g}" for side in ("reference", "candidate"))
            scores = f" ({new} instead of {old})"
        lines.append(f"{name} is {kind}, for instance {format_line(example['id'])}{scores}:")
        lines += [f"  {label:<{width}}  {format_line(text) or '(empty)'}" for label, text in texts]
    return lines


def _list_left_out(candidate: Mapping[str, Any], reference: str) -> list[str]:
    """Return a line per reason why ids were left out."""
    lines = []
    for kind, words in LEFT_OUT_TEMPLATES.items():
        of = candidate["left_out"][kind]
        if of["n"]:
            label = words.format(reference=reference, candidate=candidate["name"])
            first = of["first"]
            names: Sequence[str] = list(first)
            if isinstance(first, Mapping):
                names = [f"{id}: {why}" for id, why in first.items()]
            shown = ", ".join(map(format_line, names)) + (", …" if of["n"] > len(names) else "")
            lines.append(f"left out, {label}: {f.count(of['n'])} ({shown}).")
    return lines


def _list_errors(side: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Return a line if some examples have no answer, which counts as wrong."""
    errors = side["scores"][result["metric"]]["errors"]
    return [f"no answer, counted as wrong: {f.count(errors)} of {side['name']}."] if errors else []


def format_line(text: str) -> str:
    """Return a text on one line, shortened, without control characters."""
    line = f.clean(" ".join(text.split()))
    return line if len(line) <= MAX_LINE_LETTERS else f"{line[: MAX_LINE_LETTERS - 1]}…"
