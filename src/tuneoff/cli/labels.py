"""`tuneoff label`: a person answers the judge's question, one key per answer."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneoff.cli.console import Json, print_json

if TYPE_CHECKING:
    from tuneoff.bakeoff.labels import Label, LabelQuestion, LabelVerdict
    from tuneoff.storage.run_dir import RunDir

WIDTH = 78
KEYS_HELP = "a: A is better   b: B is better   t: equally good   s: skip   u: undo   q: quit"
CTRL_C, CTRL_D = "\x03", "\x04"


def label(
    run_dir: Annotated[Path, typer.Argument(help="The run directory of a run with a judge.")],
    rows: Annotated[int, typer.Option(min=1, help="Label the first N rows of the draw.")] = 30,
    by: Annotated[str, typer.Option(help="Who labels, where several people do.")] = "",
    seed: Annotated[int, typer.Option(help="Draw rows, and what is A and B, by this.")] = 0,
    as_json: Json = False,
) -> None:
    """Answer the judge's question yourself, to see how far its scores can be trusted.

    Rows are drawn at random, the same for every contender; names are not shown. Each key is
    written down at once; the same command again goes on where it stopped, with a larger --rows it
    adds rows.
    """
    from tuneoff.bakeoff.label_results import add_labels
    from tuneoff.bakeoff.labels import load_judged_run, read_labels
    from tuneoff.cli.tables import list_label_lines
    from tuneoff.storage.run_dir import RunDir

    run = RunDir(run_dir)
    before = run.results()
    judged = load_judged_run(run, before)
    session = LabelSession(run, judged.rubric, judged.questions(seed), rows, by, seed)
    session.recall(read_labels(run))
    session.ask_all()
    results = add_labels(run, before)
    if as_json:
        print_json({
            "labels": results.labels,
            "left": session.count_left(),
            "corrected": {c.name: c.corrected for c in results.contenders if c.corrected},
            "differences": [
                {"a": pair.a, "b": pair.b, "corrected": pair.corrected}
                for pair in results.comparisons
                if pair.corrected
            ],
        })  # fmt: skip
        return
    for line in list_label_lines(results):
        typer.echo(line)
    typer.echo(f"labels: {run.labels}")
    typer.echo(f"{session.describe_left()} `tuneoff report {run_dir}` puts this into the report.")


@dataclass
class LabelSession:
    """One person's labelling of the answers to the first rows of the draw."""

    run: RunDir
    rubric: str
    drawn: Mapping[str, Sequence[LabelQuestion]]
    """The questions of each row that was drawn, by the row's id."""
    rows: int
    """The number of rows to label, the first of the draw."""
    by: str
    """The person's name; empty where one person labels."""
    seed: int
    said: dict[tuple[str, str], LabelVerdict] = field(default_factory=dict)
    """This person's verdict on each answer, by the question's key."""
    done: list[int] = field(default_factory=list)
    """The numbers of the questions that were answered, in order."""
    known: set[tuple[str, str]] = field(default_factory=set)
    """The keys of the questions that need no person, and are stored."""

    def __post_init__(self) -> None:
        self.all_rows = len(self.drawn)
        self.drawn = dict(list(self.drawn.items())[: self.rows])
        self.row_of = {id: place for place, id in enumerate(self.drawn, 1)}
        self.asked = [q for row in self.drawn.values() for q in row if q.known is None]

    def recall(self, labels: Sequence[Label]) -> None:
        """Load what was labelled before."""
        self.known = {(each.id, each.sha256) for each in labels if each.known is not None}
        self.said = {(each.id, each.sha256): each.verdict for each in labels if each.by == self.by}
        self.done = [place for place, q in enumerate(self.asked) if _get_key(q) in self.said]

    def count_left(self) -> int:
        """Return the number of answers that this person has not been asked about."""
        return sum(_get_key(question) not in self.said for question in self.asked)

    def describe_left(self) -> str:
        """Return a sentence: what is left, and how to continue."""
        left, count = self.count_left(), len(self.drawn)
        first = "the first row" if count == 1 else f"the first {count} rows"
        if left:
            answers = "1 answer is" if left == 1 else f"{left} answers are"
            return f"{answers} left of {first}; the same command goes on."
        if self.all_rows > len(self.drawn):
            return f"Nothing is left of {first}; a larger --rows adds some."
        return "No answer of any row is left."

    def ask_all(self) -> None:
        """Ask until nothing is left, or the person quits."""
        self._store_known()
        keys, first = _read_keys(), True
        while self.count_left():
            place = next(i for i, q in enumerate(self.asked) if _get_key(q) not in self.said)
            _print_text(self._page(place, with_rubric=first))
            first = False
            if not self._take_key(place, keys):
                return
            self._store_known()

    def _take_key(self, place: int, keys: Iterator[str]) -> bool:
        """Carry out the next valid key; return False to quit."""
        question = self.asked[place]
        is_first = question.texts(self.seed)[2]
        verdicts: dict[str, LabelVerdict] = {
            "a": "better" if is_first else "worse",
            "b": "worse" if is_first else "better",
            "t": "equal",
            "s": "skipped",
        }
        for key in keys:
            if key == "q":
                return False
            if key in verdicts:
                self._write(question, verdicts[key])
                self.said[_get_key(question)] = verdicts[key]
                self.done.append(place)
                return True
            if key == "u" and self.done:
                last = self.asked[self.done.pop()]
                self._write(last, "undone")
                del self.said[_get_key(last)]
                return True
            why = "There is nothing to undo." if key == "u" else f"The key {key!r} means nothing."
            _print_text(f"{why} {KEYS_HELP}")
        return False

    def _write(
        self, question: LabelQuestion, verdict: LabelVerdict, known: str | None = None
    ) -> None:
        """Append a label to the run's file."""
        from tuneoff.bakeoff.labels import Label, append_label

        by = self.by if known is None else ""  # no person said it
        append_label(self.run, Label(question.id, question.sha256, verdict, by, known))

    def _store_known(self) -> None:
        """Store the verdicts that need no person, of the rows that are complete.

        Only up to the first row that is not: those of later rows would be no random sample.
        """
        for row in self.drawn.values():
            if any(_get_key(q) not in self.said for q in row if q.known is None):
                return
            for question in row:
                if question.known is not None and _get_key(question) not in self.known:
                    self._write(question, question.verdict, question.known)
                    self.known.add(_get_key(question))

    def _page(self, place: int, with_rubric: bool) -> str:
        """Return the text that shows an answer."""
        from tuneoff.report.format import clean

        question = self.asked[place]
        a, b, _ = question.texts(self.seed)
        row = f"Row {self.row_of[question.id]} of {len(self.drawn)}"
        title = f" {row}, answer {place + 1} of {len(self.asked)} "
        parts = [("Rubric", self.rubric)] * with_rubric + [("Task", question.task)]
        shown = [*parts, ("Answer A", a), ("Answer B", b)]
        texts = (f"{name}:\n{clean(text).strip()}" for name, text in shown)
        return "\n\n".join(
            [title.center(WIDTH, "─"), *texts, "Which is better by the rubric?", KEYS_HELP]
        )


def _get_key(question: LabelQuestion) -> tuple[str, str]:
    """Return what identifies a question."""
    return question.id, question.sha256


def _print_text(text: str) -> None:
    """Print a text on stderr."""
    typer.echo(f"\n{text}", err=True)


def _read_keys() -> Iterator[str]:
    """Yield keys as they are pressed; from a pipe its characters except blanks."""
    while True:
        if sys.stdin.isatty():
            try:
                key = typer.getchar()
            except EOFError:
                return
        else:
            key = sys.stdin.read(1)
        if key in ("", CTRL_D):
            return
        if key == CTRL_C:
            raise KeyboardInterrupt
        if key.strip():
            yield key.lower()
