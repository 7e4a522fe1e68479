"""Documents whose answer is a copy of something in the prompt: what every later skill rests on."""

from __future__ import annotations

import random
from collections.abc import Callable

from tiny_base.words import figure, identifier, invented, name, number, person, value, word, words

Document = list[tuple[str, bool]]  # pieces of text and whether they are answers
Maker = Callable[[random.Random], Document]

_LIST_MARKS = (", ", " ", "\n", "; ", " | ", " / ", " - ", ",", " and ", ": ")
_REPEAT = ("Repeat", "Copy", "Say again", "Echo", "Write once more", "Same again", "Type this")


def items(rng: random.Random, count: int) -> list[str]:
    """`count` different things, of one sort or mixed."""
    sort = rng.choice((value, value, name, word, invented, number, figure, person))
    found: dict[str, None] = {}
    while len(found) < count:
        found[sort(rng)] = None
    return list(found)


def repeat(rng: random.Random) -> Document:
    """The same list once more, sometimes with other marks between the things."""
    things = items(rng, rng.randint(1, 8))
    mark = rng.choice(_LIST_MARKS)
    text = mark.join(things)
    front = rng.choice((f"{rng.choice(_REPEAT)}: ", f"{rng.choice(_REPEAT)}:\n", ""))
    if rng.random() < 0.7:
        return [(f"{front}{text}\n", False), (text, True)]
    other = rng.choice(_LIST_MARKS)
    shown = {"\n": "on lines", " ": "with blanks"}.get(other, f"with '{other.strip()}'")
    return [(f"{text}\n{rng.choice(_REPEAT)} {shown}:\n", False), (other.join(things), True)]


def reorder(rng: random.Random) -> Document:
    """Backwards, first, last, the nth, without one, the two ends swapped."""
    things = items(rng, rng.randint(2, 6))
    text = ", ".join(things)
    nth = rng.randrange(len(things))
    order = ("first", "second", "third", "fourth", "fifth", "sixth")[nth]
    left = things[:nth] + things[nth + 1 :]
    jobs = [
        ("backwards", ", ".join(reversed(things))),
        ("the first", things[0]),
        ("the last", things[-1]),
        (f"the {order}", things[nth]),
        (f"without {things[nth]}", ", ".join(left)),
        ("how many", str(len(things))),
        (f"after {things[0]}", things[1]),
    ]
    document: Document = [(f"{text}\n", False)]
    for job, answer in rng.sample(jobs, rng.randint(1, 3)):
        document += [(f"{job}:\n" if len(document) == 1 else f"\n{job}:\n", False), (answer, True)]
    return document


def lookup(rng: random.Random) -> Document:
    """Keys with values, then some of them asked for."""
    count = rng.randint(2, 8)
    keys = dict.fromkeys(" ".join(identifier(rng)) for _ in range(count))
    pairs = {key: value(rng) for key in keys}
    mark = rng.choice((": ", " = ", " is ", " -> ", "=", ":", " - ", "\t"))
    between = rng.choice(("\n", "\n", ", ", "; ", " | "))
    frame = rng.choice(
        ("{}?", "What is the {}?", "{}", "Which {}?", "Say the {}.", "look up {}", "the {}:")
    )
    document: Document = [(between.join(f"{k}{mark}{v}" for k, v in pairs.items()) + "\n", False)]
    for key in rng.choices(list(pairs), k=rng.randint(1, 4)):
        lead = "" if len(document) == 1 else "\n"
        document += [(f"{lead}{frame.format(key)}\n", False), (pairs[key], True)]
    return document


def owners(rng: random.Random) -> Document:
    """Several things with the same attributes: what is the X of Y?"""
    things = items(rng, rng.randint(2, 4))
    keys = [" ".join(identifier(rng)) for _ in range(rng.randint(1, 3))]
    table = {(t, k): value(rng) for t in things for k in keys}
    style = rng.randrange(3)
    if style == 0:
        rows = [f"The {k} of {t} is {table[t, k]}." for t in things for k in keys]
        rng.shuffle(rows)
        text = " ".join(rows)
    elif style == 1:
        facts = (f"{t} has " + ", ".join(f"{k} {table[t, k]}" for k in keys) for t in things)
        text = ". ".join(facts) + "."
    else:
        head = " | ".join(["", *keys])
        rows = [" | ".join([t, *(table[t, k] for k in keys)]) for t in things]
        text = "\n".join([head, *rows])
    document: Document = [(text + "\n", False)]
    for thing, key in rng.sample(list(table), rng.randint(1, min(3, len(table)))):
        lead = "" if len(document) == 1 else "\n"
        question = rng.choice((f"What is the {key} of {thing}?", f"{thing}: {key}?"))
        document += [(f"{lead}{question}\n", False), (table[thing, key], True)]
    return document


def span(rng: random.Random) -> Document:
    """A span out of a line of words, named by what stands beside it, several times."""
    document: Document = []
    before, after = words(rng, 2)
    order = rng.choice((f"Between {before} and {after}:", f"Take what follows {before}:", ""))
    for shot in range(rng.randint(1 if order else 2, 3)):
        line = [word(rng) for _ in range(rng.randint(2, 7))]
        target = value(rng)
        at = rng.randint(0, len(line))
        text = " ".join([*line[:at], before, target, after, *line[at:]])
        lead = f"{order}\n" if shot == 0 and order else "\n" * bool(shot)
        document += [(f"{lead}{text}\n", False), (target, bool(order) or shot > 0)]
    return document


def translate(rng: random.Random) -> Document:
    """A small dictionary, then a phrase put into it word by word."""
    source = words(rng, rng.randint(3, 7))
    book = {w: rng.choice((invented, word))(rng) for w in source}
    mark = rng.choice((" = ", " -> ", ": ", " means "))
    between = rng.choice(("\n", ", ", "; "))
    document: Document = [(between.join(f"{a}{mark}{b}" for a, b in book.items()) + "\n", False)]
    for shot in range(rng.randint(1, 3)):
        phrase = rng.sample(source, rng.randint(1, 3))
        answer = " ".join(book[w] for w in phrase)
        document += [("\n" * bool(shot) + " ".join(phrase) + "\n", False), (answer, True)]
    return document


def casing(rng: random.Random) -> Document:
    """Words to identifiers and back: the bridge between a question and a schema."""
    forms: list[tuple[str, Callable[[list[str]], str]]] = [
        ("snake", "_".join),
        ("dashes", "-".join),
        ("upper", lambda ws: "_".join(ws).upper()),
        ("title", lambda ws: " ".join(w.capitalize() for w in ws)),
        ("plain", " ".join),
        ("quoted", lambda ws: '"' + " ".join(ws) + '"'),
        ("dotted", ".".join),
    ]
    (start, source), (end, target) = rng.sample(forms, 2)
    document: Document = []
    for shot in range(rng.randint(2, 5)):
        ws = words(rng, rng.choice((1, 2, 2, 3)))
        lead = f"{start} to {end}\n" if shot == 0 else "\n"
        document += [(f"{lead}{source(ws)}\n", False), (target(ws), True)]
    return document


def pattern(rng: random.Random) -> Document:
    """A frame with holes, filled anew each line: first shown, then continued."""
    frame = [rng.choice((word(rng), "{}")) for _ in range(rng.randint(2, 4))] + ["{}"]
    marks = [rng.choice((" ", " ", "=", ": ", ", ", "(", "/", " | ")) for _ in frame]
    order = list(range(frame.count("{}")))
    if rng.random() < 0.4:
        rng.shuffle(order)
    document: Document = []
    for shot in range(rng.randint(2, 4)):
        filling = items(rng, len(order))
        shown = "".join(f + m for f, m in zip(frame, marks, strict=True)).rstrip()
        answer = shown.format(*(filling[i] for i in order))
        document += [("\n\n" * bool(shot) + "; ".join(filling) + "\n", False), (answer, shot > 0)]
    return document


MAKERS: dict[Maker, float] = {
    repeat: 3,
    reorder: 1.5,
    lookup: 3,
    owners: 2,
    span: 2.5,
    translate: 1,
    casing: 1.5,
    pattern: 2,
}


def make(rng: random.Random) -> Document:
    """One document of this family."""
    return rng.choices(list(MAKERS), list(MAKERS.values()))[0](rng)
