"""The example browser: up to 200 example cards with filters, and a file with all examples.

The file `examples.jsonl` lies beside the page if the page has not all of them. The page's script
filters by the cards' attributes; without it every card is shown. The differences
between an answer and its reference are marked word by word.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

from tuneoff.errors import TuneoffError
from tuneoff.report import format as f
from tuneoff.report.examples import AnsweredExamples, ShownAnswer, ShownExample
from tuneoff.report.view import View, rank_contenders
from tuneoff.results import Results
from tuneoff.storage.files import write_lines
from tuneoff.storage.run_dir import RunDir

Kind = Literal["", "added", "missing"]
Piece = tuple[Kind, str]
# A word or a punctuation mark with the blanks after it, at the beginning also those before.
_WORDS = re.compile(r"(?:\A\s+)?(?:\w+|[^\w\s])\s*")
# Max equal pairs of words: the time of comparing grows with them, and a text that repeats one word
# has very many.
MAX_EQUAL_PAIRS = 20_000
# Min similarity of the two texts. Below it nearly everything would be marked, which tells nothing.
MIN_SIMILARITY = 0.3


def mark_differences(answer: str, reference: str) -> list[Piece]:
    """Return an answer in pieces: common, added, and, in their place, missing words; blanks do not
    count.

    If comparing would tell nothing, the answer is one unmarked piece.
    """
    ours, theirs = _WORDS.findall(answer), _WORDS.findall(reference)
    a, b = [word.strip() for word in theirs], [word.strip() for word in ours]
    if a == b or not _is_worth_comparing(a, b):
        return [("", answer)]
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < MIN_SIMILARITY:
        return [("", answer)]
    pieces: list[Piece] = []
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(("", "".join(ours[k:m])))
        else:
            both: tuple[Piece, Piece] = (
                ("missing", "".join(theirs[i:j])),
                ("added", "".join(ours[k:m])),
            )
            pieces += [piece for piece in both if piece[1]]
    return pieces


def _is_worth_comparing(a: Sequence[str], b: Sequence[str]) -> bool:
    """Return whether two texts have enough in common, and are quick to compare."""
    times_a, times_b = Counter(a), Counter(b)
    alike = sum(times * times_b[word] for word, times in times_a.items())
    common = (times_a & times_b).total()
    return 2 * common >= MIN_SIMILARITY * (len(a) + len(b)) > 0 and alike <= MAX_EQUAL_PAIRS


MAX_CARDS = 200
# Max bytes of all cards. Of the page's 3 MB, half of what the charts' program leaves.
MAX_CARD_BYTES = 1_000_000
MAX_CHARACTERS = 2000
# Max characters of an input that is shown at once. A longer one is folded behind its beginning.
MAX_UNFOLDED = 160
RESULT_ROWS, RESULT_COLUMNS, RESULT_CHARACTERS = 6, 6, 40


def load_answered(run: RunDir, results: Results) -> AnsweredExamples:
    """Return the run's answered test examples, contenders best first."""
    names = _load_class_names(results)
    return AnsweredExamples(
        run, rank_contenders(results), results.primary_metric, names, results.left_out
    )


def _load_class_names(results: Results) -> Mapping[str, str]:
    """Return what the scorer of one of tuneoff's own tasks calls its verdicts; empty for other
    tasks.

    Code that somebody else wrote is not run to make a report.
    """
    if "." in results.task:
        return {}
    from tuneoff.scoring.base import load_scorer
    from tuneoff.tasks.base import load_task

    try:
        scorer = load_scorer(load_task(results.task).SCORER)
    except (TuneoffError, ImportError):
        return {}
    names: Mapping[str, str] = getattr(scorer, "ERROR_CLASSES", {})
    return names


def build_browser(examples: AnsweredExamples, render: Callable[[View], str]) -> View:
    """Return the cards, as many as the page has room for, and the values to filter them by.

    `render` turns a card's view into HTML.
    """
    cards, classes, groups = list[str](), dict[str, None](), dict[str, dict[str, None]]()
    room = MAX_CARD_BYTES
    for number, shown in enumerate(examples.show(examples.choose(MAX_CARDS)), 1):
        view = build_card(number, shown)
        html = render(view)
        room -= len(html.encode())
        if room < 0 and cards:
            break
        cards.append(html)
        classes |= dict.fromkeys(name for _, name in view["marks"] if name)
        for key, group in view["groups"]:
            groups.setdefault(key, {})[group] = None
    return {
        "cards": cards,
        "names": examples.names,
        "classes": sorted(classes),
        "groups": [(key, sorted(values)) for key, values in sorted(groups.items())],
        "of": len(examples),
    }


def write_all_examples(run: RunDir, examples: AnsweredExamples | None, cards: int) -> None:
    """Write `examples.jsonl`, every example with whole texts, if the page has not all of them."""
    run.all_examples.unlink(missing_ok=True)
    if examples is not None and len(examples) > cards:
        write_lines(run.all_examples, _build_rows(examples))


def _build_rows(examples: AnsweredExamples) -> Iterator[dict[str, Any]]:
    """Yield the rows of `examples.jsonl`."""
    for shown in examples.show(list(examples.patterns)):
        yield {
            "id": shown.id,
            "inputs": dict(shown.inputs),
            "reference": shown.reference,
            "groups": dict(shown.groups),
            "answers": {
                answer.contender: {
                    "prediction": answer.text,
                    "right": answer.right,
                    "verdict": answer.verdict,
                    "error": answer.error,
                }
                for answer in shown.answers
            },
        }


def build_card(number: int, shown: ShownExample) -> View:
    """Return the view of an example's card, with long texts shortened."""
    reference = f.shorten(shown.reference, MAX_CHARACTERS)
    marks = [(int(a.right), f.shorten(f.clean(a.error_class or ""), 80)) for a in shown.answers]
    groups = [(key, f.clean(value)) for key, value in sorted(shown.groups.items())]
    tables = [_build_result_tables(answer.results) for answer in shown.answers]
    return {
        "number": number,
        "id": f.shorten(shown.id, 200),
        "inputs": [(name, *_fold_text(text)) for name, text in shown.inputs],
        "reference": reference,
        "answers": [
            {
                "name": answer.contender,
                "pieces": _mark_pieces(answer.text, shown.reference),
                "empty": not answer.text.strip(),
                "right": answer.right,
                "verdict": f.shorten(format_verdict(answer), 200),
                "tables": found,
            }
            for answer, found in zip(shown.answers, tables, strict=True)
        ],
        "groups": groups,
        "marks": marks,
        "data": json.dumps(marks),
        "data_groups": json.dumps(dict(groups)),
    }


def build_markdown_example(shown: ShownExample) -> View:
    """Return the view of an example in Markdown."""
    return {
        "id": f.shorten(shown.id, 200),
        "inputs": [(name, f.shorten(text, MAX_CHARACTERS)) for name, text in shown.inputs],
        "reference": f.shorten(shown.reference, MAX_CHARACTERS),
        "answers": [
            {
                "name": answer.contender,
                "text": f.shorten(answer.text, MAX_CHARACTERS),
                "right": answer.right,
                "verdict": f.shorten(format_verdict(answer), 200),
            }
            for answer in shown.answers
        ],
    }


def format_verdict(answer: ShownAnswer) -> str:
    """Return the verdict on an answer, beyond right or wrong."""
    if answer.error:
        return f"no answer: {answer.error}"
    return answer.verdict.removeprefix("right" if answer.right else "wrong").strip()


def _fold_text(text: str) -> tuple[str, str]:
    """Return a text, and its beginning if it is to be folded."""
    shown = f.shorten(text, MAX_CHARACTERS)
    line = " ".join(shown[: 2 * MAX_UNFOLDED].split())
    folded = len(shown) > MAX_UNFOLDED or shown.count("\n") > 2
    return shown, line[: MAX_UNFOLDED // 2] + "…" if folded else ""


def _mark_pieces(text: str, reference: str) -> list[tuple[str, str]]:
    """Return the marked pieces of an answer, shortened; the last one says how long it is in all."""
    pieces = mark_differences(text[:MAX_CHARACTERS], reference[:MAX_CHARACTERS])
    whole = f.shorten(text, MAX_CHARACTERS)
    return [*pieces, ("", whole[MAX_CHARACTERS:])] if len(text) > MAX_CHARACTERS else [*pieces]


def _build_result_tables(results: Mapping[str, Any] | None) -> list[View]:
    """Return the result tables of reference and answer; empty for an answer that was right."""
    if not results:
        return []
    return [
        {"title": title, **_build_table(results.get(key))}
        for title, key in (("of the reference", "reference"), ("of the answer", "prediction"))
    ]


def _build_table(table: Mapping[str, Any] | None) -> View:
    """Return the view of a result table, shortened."""
    if table is None:
        return {"none": True, "cut": False}
    rows, columns = table["rows"], table["columns"]
    size = (
        f"{f.count(table['row_count'])} {'row' if table['row_count'] == 1 else 'rows'}, "
        f"{f.count(table['column_count'])} {'column' if table['column_count'] == 1 else 'columns'}"
    )
    return {
        "none": False,
        "columns": [_format_value(name) for name in columns[:RESULT_COLUMNS]],
        "rows": [[_format_value(v) for v in row[:RESULT_COLUMNS]] for row in rows[:RESULT_ROWS]],
        "size": size,
        "cut": table["row_count"] > RESULT_ROWS or table["column_count"] > RESULT_COLUMNS,
    }


def _format_value(value: Any) -> str:
    """Return a cell of a result table as text, shortened."""
    text = "NULL" if value is None else str(value)
    return text if len(text) <= RESULT_CHARACTERS else f"{text[: RESULT_CHARACTERS - 1]}…"


def build_empty_browser() -> View:
    """Return the browser of a report without examples."""
    return {"cards": [], "names": [], "classes": [], "groups": [], "of": 0}


def build_first_examples(examples: AnsweredExamples, limit: int) -> Sequence[View]:
    """Return the views of the first examples, for Markdown."""
    return [build_markdown_example(shown) for shown in examples.show(examples.choose(limit))]
