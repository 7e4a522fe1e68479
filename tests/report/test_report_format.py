"""Values as readers see them, and text that cannot do anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tuneoff.report import format as f
from tuneoff.report import render


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (f.score(0.8344), "83.4%"),
        (f.score(7.5, share=False), "7.50"),
        (f.score(None), "–"),
        (f.interval(-0.012, 0.0811), "[−1.2, 8.1]"),
        (f.interval(None, 0.5), ""),
        (f.difference(-0.0001), "0.0 points"),
        (f.difference(0.125), "12.5 points"),
        (f.p_equals(0.00001), "p < 0.0001"),
        (f.p_equals(0.00031), "p = 0.0003"),
        (f.p_equals(0.0432), "p = 0.043"),
        (f.p_equals(1.0), "p = 1.00"),
        (f.seconds(0.0412), "41.2 ms"),
        (f.seconds(4.21), "4.2 s"),
        (f.seconds(59.97), "1 min 0 s"),
        (f.seconds(134.2), "2 min 14 s"),
        (f.seconds(3599.7), "1 h 0 min"),
        (f.seconds(0.0), "0 ms"),
        (f.size(734 * 2**20), "734 MiB"),
        (f.size(3 * 2**29), "1.5 GiB"),
        (f.size(None), "–"),
        (f.count(1650321), "1,650,321"),
        (f.number(24.31), "24.3"),
        (f.number(12345.6), "12,346"),
        (f.usd(11.99), "$11.99"),
        (f.usd(0.00421), "$0.0042"),
        (f.usd(0.0), "$0.00"),
        (f.usd(1234.5), "$1,234.50"),
        (f.usd(float("nan")), "–"),
    ],
)
def test_values(shown: str, expected: str) -> None:
    assert shown == expected


def test_clean_shows_what_cannot_be_seen() -> None:
    assert f.clean("a\tb\r\nc") == "a\tb\nc"
    assert f.clean("\x1b[31m\u202e\ud800") == "⟨U+001B⟩[31m⟨U+202E⟩⟨U+D800⟩"
    assert f.clean("naïve 漢字 👩‍👩‍👧") == "naïve 漢字 👩‍👩‍👧"


anything = st.text(st.one_of(st.characters(), st.sampled_from("`|<>*_[]()!#~\\&$\n")))


@given(anything)
def test_clean_text_can_be_written(text: str) -> None:
    f.clean(text).encode()
    assert f.clean(f.clean(text)) == f.clean(text)


@given(anything)
def test_a_fence_holds_anything(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(str(render.format_fence(text)))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content.rstrip("\n") == f.clean(text).rstrip("\n")


@given(anything)
def test_escaped_text_is_one_plain_cell(text: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = parser.parse(f"| a | b |\n| - | - |\n| x {render.escape(text)} | y |\n")
    cells = [token for token in tokens if token.type == "inline"]
    assert [cells[3].content, len(cells)] == ["y", 4]
    kinds = {child.type for child in cells[2].children or ()}
    assert kinds <= {"text", "text_special"}
    shown = "".join(child.content for child in cells[2].children or ())
    assert shown.split() == ["x", *f.clean(text).split()]
