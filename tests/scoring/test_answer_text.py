"""Thoughts and fences: what stands around an answer, and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneoff.scoring import functional, text
from tuneoff.scoring.answer_text import find_in_language, strip_fence, strip_thoughts
from tuneoff.scoring.base import Options, ScoringInput, ThoughtCounter
from tuneoff.scoring.custom import FileMetric

CALL = "depict(hut[Velora], stove[peat])"
HARMONY = (
    "<|channel|>analysis<|message|>A lake?<|end|><|start|>assistant<|channel|>final<|message|>"
)


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("<think>\nCapitals.\n</think>\n\nOslo", "Oslo"),
        ("Capitals, I don't know.</think>Oslo", "Oslo"),  # the template opened it
        ("<think>one</think> no <think>two</think> Oslo", "Oslo"),
        ("<THINK>one</Think >Oslo", "Oslo"),
        ("<thinking>one</thinking>Oslo", "Oslo"),
        ("<reasoning>one</reasoning>Oslo", "Oslo"),
        ("<seed:think>one</seed:think>Oslo", "Oslo"),
        ("[THINK]one[/THINK]Oslo", "Oslo"),
        ("◁think▷one◁/think▷Oslo", "Oslo"),
        (HARMONY + "Oslo<|return|>", "Oslo"),
        ("analysisA capital.assistantfinalOslo", "Oslo"),
        ("analysis of Oslo", "analysis of Oslo"),
        ("<think>one</think>", ""),
        ("<think>Capitals", None),
        ("I don't see.\n<think>Capitals", None),
        ("<think>one</think>Oslo\n<think>two", None),
        ("<|channel|>analysis<|message|>A lake", None),
        ("SELECT '<think>' AS t", "SELECT '<think>' AS t"),
        ("Use the `<think>` tag", "Use the `<think>` tag"),
        ("<b>Oslo</b>", "<b>Oslo</b>"),
    ],
)
def test_thoughts(answer: str, left: str | None) -> None:
    found = strip_thoughts(answer, "Oslo")
    assert (found if found is None else found.strip()) == left
    assert found is None or strip_thoughts(found, "Oslo") == found


def test_thoughts_that_the_reference_has_too() -> None:
    whole = "<think>two</think>Oslo"
    assert strip_thoughts(whole, "<think>one</think>Bergen") == whole
    assert strip_thoughts("<think>two", "<think>one</think>Bergen") == "<think>two"
    assert strip_thoughts(whole, "one</think>Bergen") == whole
    # A tag in a text that the reference quotes is text; a thought before it is none the less one.
    quoted = "SELECT 1 WHERE tag = '</think>'"
    assert strip_thoughts(quoted, quoted) == quoted
    assert strip_thoughts(f"<think>It's a tag.</think>{quoted}", quoted) == quoted
    opened = "SELECT 1 WHERE tag LIKE '%<think>%'"
    assert strip_thoughts(f"hm</think>{opened}", opened) == opened


def starts(text: str) -> bool:
    return text.strip().lower().startswith("get")


@pytest.mark.parametrize(
    ("answer", "in_language", "as_text"),
    [
        ("```\nget a\n```", "get a", "get a"),
        ("```http\r\nget a\r\n```\r\n", "get a", "get a"),
        ("```text get a ```", "get a", "get a"),
        ("```get a```", "get a", "get a"),
        ("~~~\nget a\n~~~", "get a", "get a"),
        ("~~~text get a ~~~", "get a", "get a"),
        ("```http\nget a", "get a", "get a"),  # cut, or stopped at its fence
        ("get a\n```", "get a", "get a"),  # the prompt opened it
        ("get a ```", "get a", "get a"),
        ("http\nget a\n```", "get a", "http\nget a"),
        ("````http\nget a\n````", "get a", "get a"),
        ("   ```http\n   get a\n   ```", "get a", "get a"),
        ("```http title=one\nget a\n```", "get a", "get a"),
        ("```get a\nthen b\n```", "get a\nthen b", "get a\nthen b"),
        ("`get a`", "get a", "get a"),
        ("\ufeff```\nget a```", "get a", "get a"),
        ("```\nget a\n```\n```\nget b\n```", "get b", "get b"),
        ("```\nget a\n```\n```\nnothing\n```", "get a", "nothing"),
        ("````md\n```http\nget a\n```\n````", "get a", "```http\nget a\n```"),
        ("```\nget '```' b\n```", "get '```' b", "get '```' b"),
        ("So:\n```http\nget a\n```\nDone.", "get a", None),
        ("get a\n```\nDone.", "get a", None),
        ("1. The answer:\n   ```http\n   get a\n   ```\n2. No more.", "get a", None),
        ("See ```get a``` there", "get a", None),
        ("get a", "get a", "get a"),
        ("no fence", "no fence", "no fence"),
        ("```\nDROP\n```", "DROP", "DROP"),
    ],
)
def test_fences(answer: str, in_language: str, as_text: str | None) -> None:
    """`as_text` None: there is more than a fence, and all of it counts."""

    def reads(text: str) -> bool:
        return starts(text) and not text.rstrip().endswith("```") and "Done" not in text

    assert find_in_language(answer, "get a", reads) == in_language
    assert strip_fence(answer, "get a") == (answer.strip() if as_text is None else as_text)
    # Where the reference is fenced, a fence is part of the answer.
    for fenced in ("```\nx\n```", "~~~\nx", "`x`"):
        assert strip_fence(answer, fenced) == find_in_language(answer, fenced, reads)
        assert strip_fence(answer, fenced) == answer.strip(" \n\r\ufeff")


def test_many_fences_are_read_quickly() -> None:
    """Where reading were quadratic, this would take minutes."""
    for hostile in ("```\n" * 9_000, "```a" * 9_000, "~~~\n`````" * 4_000, "```x\n" * 8_000,
                    "`" * 100_000, "<think>" * 14_000, "'<think>" * 12_000):  # fmt: skip
        assert len(find_in_language(hostile, "x", lambda _: False)) <= len(hostile)
        assert len(strip_fence(hostile, "x")) <= len(hostile)
        assert strip_thoughts(hostile, "x") in (hostile, None)


@pytest.mark.parametrize(
    "answer",
    [
        f"```{CALL}```", f"```python {CALL}\n```", f"```mr\r\n{CALL}\r\n```", f"~~~\n{CALL}",
        f"{CALL}\n```", f"```\nother(a[b])\n```\nOr better:\n```\n{CALL}\n```\n```\nsee above\n```",
    ],
)  # fmt: skip
def test_calls_are_read_in_fences(answer: str) -> None:
    fenced, thought, plain = functional.score_rows(
        [ScoringInput("1", CALL, answer), ScoringInput("2", CALL, f"<think>{answer}</think>{CALL}"),
         ScoringInput("3", CALL, f"<think>{CALL}")], Options(),
    )  # fmt: skip
    assert fenced.verdict == "right but for form"
    assert [metric for metric, value in fenced.scores.items() if not value] == ["exact_match"]
    assert thought.verdict == "right"
    assert plain.verdict == "a thought without its end"
    assert not any(plain.scores.values())


def test_texts_keep_fences_that_the_reference_has() -> None:
    reference = "```python\nprint(1)\n```"
    same, bare, other = text.score_rows(
        [ScoringInput("1", reference, f"{reference}\n"), ScoringInput("2", reference, "print(1)"),
         ScoringInput("3", "print(1)", reference)], Options(),
    )  # fmt: skip
    assert [row.verdict for row in (same, bare, other)] == ["right", "wrong", "right but for form"]


def test_a_metric_of_one_s_own_sees_no_thoughts(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def score(e, p):\n    return p == e.completion\n")
    rows = [
        ScoringInput("1", " Oslo\n", "<think>one</think>\n\nOslo "),
        ScoringInput("2", "Oslo", "<think>Oslo"),
    ]
    found = list(FileMetric(tmp_path / "own.py").score_rows(rows, Options()))
    assert [(row.scores["own"], row.verdict) for row in found] == [
        (True, "right"), (False, "a thought without its end"),
    ]  # fmt: skip


def test_thoughts_are_counted() -> None:
    rows = [
        ScoringInput("1", "a", "<think>b"),
        ScoringInput("2", "a", "b</think>a"),
        ScoringInput("3", "a", "hm", is_truncated=True),
    ]
    for mode, part in (("strict", "2 of 3 answers are a thought without its end"),
                       ("official", "3 of 3 answers hold a thought")):  # fmt: skip
        counter = ThoughtCounter(mode)  # type: ignore[arg-type]
        assert counter.warnings() == []
        for row in rows:
            counter.add(row)
        assert part in counter.warnings()[0]


def test_marks_within_a_text_of_the_language_are_no_fence() -> None:
    call = "depict(hut[a ``` b])"
    row = ScoringInput("1", call, f"```\n{call}\n```", {})
    (scored,) = functional.score_rows([row], Options())
    assert scored.verdict == "right but for form"


@pytest.mark.parametrize("quoted", ["'</think>'", "'%</think>%'", '"</think>"', "`</think>`"])
def test_a_tag_between_quotes_ends_no_thought(quoted: str) -> None:
    answer = f"SELECT a FROM t WHERE b <> {quoted}"
    assert strip_thoughts(answer, "SELECT a FROM t") == answer
    assert strip_thoughts(f"That's it</think>{answer}", "SELECT a FROM t") == answer


def test_blank_lines_without_end_are_read_quickly() -> None:
    answer = f"<|channel|>final<|message|>Oslo{chr(10) * 200_000}Oslo"
    assert (strip_thoughts(answer, "Oslo") or "").startswith("Oslo")
