"""Notations for records: drawn per document, never `word(word[value], ...)`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

Slots = dict[str, list[str]]


@dataclass(frozen=True)
class Notation:
    """How a label and its slots are written down."""

    render: Callable[[str, Slots], str]


# What stands between key and value, and after the value. No square bracket among them.
_HOLDS = (
    ("=", ""), (": ", ""), (":", ""), (" = ", ""), ("->", ""), (" -> ", ""), ("{", "}"), ("<", ">"),
    ("(", ")"), ("='", "'"), ('="', '"'), (" is ", ""), ("|", ""), ("/", ""), ("~", "~"), (" ", ""),
    ("{{", "}}"), (": '", "'"), (' "', '"'), ("<<", ">>"), ("*", "*"), ("@", ""), ("(", ")"),
)  # fmt: skip
_BETWEEN = (", ", ", ", "; ", " | ", "\n", " ", " & ", " / ", "|", ",", " + ")
_AROUND = (
    ("(", ")"), ("(", ")"), ("{", "}"), ("<", ">"), (": ", ""), (" ", ""), ("\n", ""),
    (" { ", " }"),    (" -> ", ""), ("!", ""), (" (", ")"), ("| ", " |"),
)  # fmt: skip
_LISTS = (", ", ", ", "+", " and ", "/", "; ", " & ", ",")


def _delimited(rng: random.Random) -> Callable[[str, Slots], str]:
    opened, closed = rng.choice(_HOLDS)
    start, end = rng.choice(_AROUND)
    between, listed = rng.choice(_BETWEEN), rng.choice(_LISTS)

    def render(label: str, slots: Slots) -> str:
        body = between.join(f"{k}{opened}{listed.join(v)}{closed}" for k, v in slots.items())
        return f"{label}{start}{body}{end}" if label else body

    return render


def _json(label: str, slots: Slots) -> str:
    plain = {key: values[0] if len(values) == 1 else values for key, values in slots.items()}
    return json.dumps({"label": label, **plain} if label else plain)


def _xml(label: str, slots: Slots) -> str:
    body = "".join(f"<{k}>{v}</{k}>" for k, values in slots.items() for v in values)
    return f"<{label}>{body}</{label}>" if label else body


def _yaml(label: str, slots: Slots) -> str:
    lines = [f"{label}:"] if label else []
    pad = "  " if label else ""
    for key, values in slots.items():
        if len(values) == 1:
            lines.append(f"{pad}{key}: {values[0]}")
        else:
            lines += [f"{pad}{key}:", *(f"{pad}- {v}" for v in values)]
    return "\n".join(lines)


def _lisp(label: str, slots: Slots) -> str:
    body = " ".join(f"({k} {' '.join(json.dumps(v) for v in vs)})" for k, vs in slots.items())
    return f"({label} {body})" if label else body


def _table(label: str, slots: Slots) -> str:
    head = ["label", *slots] if label else list(slots)
    row = [" + ".join(v) for v in slots.values()]
    return f"{' | '.join(head)}\n{' | '.join([label, *row] if label else row)}"


def draw_notation(rng: random.Random) -> Notation:
    """A notation: two in three with delimiters of its own."""
    if rng.random() < 0.68:
        return Notation(_delimited(rng))
    return Notation(rng.choice((_json, _json, _xml, _yaml, _lisp, _table)))
