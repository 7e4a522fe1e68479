"""Plain sentences of everyday grammar and unlikely content, supervised throughout."""

from __future__ import annotations

import random

from tiny_base.copying import Document
from tiny_base.words import figure, name, number, person, word

_FRAMES = (
    "{p} went to {n} on {f} and bought the {w} for {f}.",
    "There are {d} {w}s in {n}, but only a few of them are {w}.",
    "The {w} that we saw in {n} was more {w} than the {w} at home.",
    "Do you think {n} is a good {w}, or would you rather have a {w}?",
    "I don't like the {w}, because it's too {w} and it has no {w}.",
    "When {p} came back from {n}, nobody had seen the {w}.",
    "My {w} and I would like to know whether {n} has a {w} with {d} {w}s.",
    '"{n}" was made by {p} in {d}; it is about a {w} and a {w}.',
    "Is there any {w} that isn't {w}? What about {n} from {d}?",
    "In {d}, {n} had a {w} of {f}, which is higher than that of {n}.",
    "Please tell {p} that the {w} is at {f}, not at {f}.",
    "Each of the {w}s has a {w}, an {w} and one or two {w}s.",
    "If you want a {w} {w}, you should ask {p} or visit {n}.",
    "Neither the {w} nor the {w} was as good as {n}, said {p}.",
    "How many {w}s does {n} have? It has {d}, and all of them are {w}.",
    "The oldest {w}, the longest {w} and the cheapest {w} are all in {n}.",
)


def make(rng: random.Random) -> Document:
    """One to four sentences."""
    made = []
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(_FRAMES)
        for mark, maker in (("{p}", person), ("{n}", name), ("{f}", figure), ("{d}", number)):
            while mark in text:
                text = text.replace(mark, maker(rng), 1)
        while "{w}" in text:
            text = text.replace("{w}", word(rng), 1)
        made.append(text)
    return [(" ".join(made), True)]
