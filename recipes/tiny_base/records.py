"""Sentences and the records that say the same, in a notation shown by an instruction or by shots.

A document draws its own small world: attributes with values of a kind, phrases that announce them,
label words for the kinds of sentence, a notation, an order. Square brackets never follow a word.
"""

# ruff: noqa: SIM905
from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tiny_base.copying import Document
from tiny_base.notation import Notation, draw_notation
from tiny_base.words import figure, identifier, name, number, person, value, word, words

_NAMED = (
    "with a {k} of {v}|whose {k} is {v}|with the {k} {v}|its {k} being {v}|{k} {v}|with {v} as {k}"
    "|that has {v} for a {k}|a {v} {k}|where the {k} is {v}|{k}: {v}|with {v} {k}"
).split("|")
_NAMED_VERBAL = (
    "has a {k} of {v}|has {v} as its {k}|comes with the {k} {v}|shows {v} for {k}"
    "|puts its {k} at {v}"
    "|has the {k} {v}|keeps a {v} {k}|is of {k} {v}|uses {v} {k}"
).split("|")
_HINTED = (
    "{p} {v}|{p} the {v} {w}|{w} {p} {v}|{w} by {v}|{p} {v} {w}|of the {w} {v}|{p} {w} {v}|{v} {w}"
).split("|")
_HINTED_VERBAL = (
    "is {w} {p} {v}|{w} {v}|{w} {p} the {v} {x}|was {w} {p} {v}|{w} {v} {p} the {x}|can {w} {v}"
    "|has {w} {v}|has {v} {p} its {w}|is called {v} by {w}|goes {p} {v}|gives {v} to {w}"
).split("|")
_PREPOSITIONS = (
    "from by in at on for under near with over since through among against beyond inside to about"
).split()
_YES = "with a {k}|with {k}|that has {k}|including {k}|plus a {k}|with its own {k}".split("|")
_NO = "without a {k}|with no {k}|that lacks {k}|without any {k}|not with {k}".split("|")
_YES_VERBAL = "has a {k}|comes with {k}|brings a {k}|offers {k}|has {k}|does have a {k}".split("|")
_NO_VERBAL = "has no {k}|lacks a {k}|does not have {k}|misses {k}|comes without {k}".split("|")
_YES_HINTED = "{w} {k}s|allows {k}|is open to {k}|likes {k}|takes {k}".split("|")
_NO_HINTED = "refuses {k}|is not for {k}|hates {k}|keeps {k} away|never takes {k}".split("|")

ACTS: dict[str, tuple[str, ...]] = {
    "statement": (
        "{s} is a {n} {c}.",
        "{s}, the {n} {c}.",
        "This is {s}, a {n} {c}.",
        "There is a {n} called {s} {c}.",
    ),
    "question": (
        "Is {s} a {n} {c}?",
        "Have you seen {s}, a {n} {c}?",
        "What about a {n} {c}, like {s}?",
        "Do you know whether {s} is the {n} {c}?",
    ),
    "opinion": (
        "I really like {s}, a {n} {c}.",
        "{s} is a great {n} {c}, I think.",
        "We hated {s}: a {n} {c}.",
        "Honestly, {s} bored me, though it is a {n} {c}.",
    ),
    "order": (
        "Find me {s}, the {n} {c}.",
        "Bring {s} to us, a {n} {c}.",
        "Get {s} at once, the {n} {c}!",
        "Please look for {s}, a {n} {c}.",
    ),
    "comparison": (
        "{s} is better than any other {n} {c}.",
        "No {n} {c} comes close to {s}.",
        "Unlike the rest, {s} is a {n} {c}.",
    ),
    "offer": (
        "You could have {s}, a {n} {c}.",
        "Shall we take {s}, the {n} {c}?",
        "May I show you {s}, a {n} {c}?",
        "How about trying {s}, the {n} {c}?",
    ),
}
_KINDS: dict[str, Callable[[random.Random], str]] = {
    "name": name,
    "person": person,
    "word": word,
    "number": number,
    "figure": figure,
    "any": value,
    "phrase": lambda rng: " ".join(words(rng, 2)),
}


@dataclass(frozen=True)
class Attribute:
    """One attribute of a document's world."""

    key: str
    kind: str
    choices: tuple[str, ...]  # empty: anything of the kind
    cues: tuple[str, ...]  # phrases with a hole, or for a flag: yes-phrases
    denials: tuple[str, ...] = ()
    many: bool = False

    def draw(self, rng: random.Random) -> tuple[list[str], str]:
        """Values, and the phrase that says so."""
        if self.kind == "flag":
            yes = rng.random() < 0.5
            return [self.choices[0 if yes else 1]], rng.choice(self.cues if yes else self.denials)
        count = rng.choice((1, 2, 2, 3)) if self.many else 1
        if self.choices:
            values = rng.sample(self.choices, min(count, len(self.choices)))
        else:
            values = list(dict.fromkeys(_KINDS[self.kind](rng) for _ in range(count)))
        *first, last = values
        said = f"{', '.join(first)} and {last}" if first else last
        return values, rng.choice(self.cues).replace("{v}", said)


def draw_attribute(
    rng: random.Random, verbal: bool, cased: Callable[[list[str]], str]
) -> Attribute:
    """An attribute with one to three ways to be said in a sentence."""
    key_words = identifier(rng)
    spoken = " ".join(key_words)
    key = cased(key_words)
    if rng.random() < 0.2:
        yes, no = (_YES_VERBAL, _NO_VERBAL) if verbal else (_YES, _NO)
        if verbal and rng.random() < 0.4:
            yes, no = _YES_HINTED, _NO_HINTED
        verb = word(rng)
        shown = rng.choice((("yes", "no"), ("yes", "no"), ("true", "false"), ("1", "0")))
        fill = [
            tuple(c.replace("{k}", spoken).replace("{w}", verb) for c in rng.sample(p, 2))
            for p in (yes, no)
        ]
        return Attribute(key, "flag", shown, fill[0], fill[1])
    kind = rng.choice(("name", "name", "person", "word", "number", "figure", "any", "phrase"))
    choices: tuple[str, ...] = ()
    if rng.random() < 0.35:
        choices = tuple(dict.fromkeys(_KINDS[kind](rng) for _ in range(rng.randint(2, 5))))
    if rng.random() < 0.5:
        forms = _NAMED_VERBAL if verbal else _NAMED
    else:
        forms = _HINTED_VERBAL if verbal else _HINTED
    cues = []
    for form in rng.sample(forms, rng.choice((1, 1, 2, 3))):
        form = form.replace("{k}", spoken).replace("{w}", word(rng)).replace("{x}", word(rng))
        cues.append(form.replace("{p}", rng.choice(_PREPOSITIONS)))
    return Attribute(key, kind, choices, tuple(cues), many=rng.random() < 0.25)


@dataclass(frozen=True)
class World:
    """What all sentences of one document share."""

    noun: str
    subject: str  # the subject's key
    subject_of: Callable[[random.Random], str]
    attributes: tuple[Attribute, ...]
    labels: dict[str, str]  # act -> label
    notation: Notation
    verbal: bool
    sorted: bool
    labelled: bool

    def pair(self, rng: random.Random, most: int) -> tuple[str, str]:
        """A sentence and its record."""
        act = rng.choice(list(self.labels))
        chosen = rng.sample(self.attributes, rng.randint(1, min(most, len(self.attributes))))
        thing = self.subject_of(rng)
        slots, phrases = {self.subject: [thing]}, []
        for attribute in chosen:
            slots[attribute.key], phrase = attribute.draw(rng)
            phrases.append(phrase)
        *first, last = phrases
        clauses = f"{', '.join(first)} and {last}" if first else last
        if self.verbal:
            clauses = rng.choice(("that ", "which ")) + clauses
        frame = rng.choice(ACTS[act])
        sentence = frame.format(s=thing, n=self.noun, c=clauses)
        if self.sorted:
            order = [self.subject, *(a.key for a in self.attributes)]
            slots = {key: slots[key] for key in order if key in slots}
        label = self.labels[act] if self.labelled else ""
        return sentence[:1].upper() + sentence[1:], self.notation.render(label, slots)


def draw_world(rng: random.Random, small: bool) -> World:
    """A world of two to seven attributes (small: two or three)."""
    cased = rng.choice(("_".join, "_".join, " ".join, "-".join, lambda ws: " ".join(ws).title()))
    verbal = rng.random() < 0.5
    count = rng.randint(2, 3) if small else rng.randint(2, 7)
    attributes = {}
    for _ in range(count):
        attribute = draw_attribute(rng, verbal, cased)
        attributes[attribute.key] = attribute
    noun, subject = words(rng, 2)
    if rng.random() < 0.5:
        subject = noun
    attributes.pop(subject, None)
    attributes.setdefault("size", draw_attribute(rng, verbal, lambda _: "size"))
    acts = rng.sample(list(ACTS), rng.randint(2, 2 if small else 4))
    labels = dict(zip(acts, words(rng, len(acts)), strict=True))
    return World(
        noun=noun,
        subject=subject,
        subject_of=rng.choice((name, name, name, person, word)),
        attributes=tuple(attributes.values()),
        labels=labels,
        notation=draw_notation(rng),
        verbal=verbal,
        sorted=rng.random() < 0.7,
        labelled=rng.random() < 0.75,
    )


_ASK = (
    "Write the line as {f}.|Turn this into {f}|Answer in the form {f}.|Format: {f}"
    "|As a record like {f}:|Use {f}."
).split("|")
_HEADS = (
    ("", ""),
    ("Text: ", "\nRecord:"),
    ("### Text:\n", "\n\n### Record:"),
    ("Input: ", "\nOutput:"),
    ("# Line\n", "\n# Result"),
    ("<in>", "</in>\n<out>"),
    ("### Note:\n", "\n\n### Facts:"),
    ("- ", "\n="),
)


def _instruction(rng: random.Random, world: World) -> str:
    keys = [world.subject, *(a.key for a in world.attributes)]
    example = {key: ["..."] for key in keys[: rng.randint(1, 2)]}
    label = "label" if world.labelled else ""
    text = rng.choice(_ASK).replace("{f}", world.notation.render(label, example))
    if world.labelled:
        said = [f"{act}: {label}" for act, label in world.labels.items()]
        text += (
            rng.choice(("\n", " ")) + rng.choice(("Labels: ", "", "Use ")) + ", ".join(said) + "."
        )
    if rng.random() < 0.7 or world.sorted:
        text += rng.choice((" Keys: ", "\nKeys in order: ", " With ", "\n")) + ", ".join(keys) + "."
    return text + rng.choice(("\n", "\n\n"))


def make(rng: random.Random, small: bool = False) -> Document:
    """One document of this family: sentences and records; an unannounced first is no target."""
    world = draw_world(rng, small)
    told = rng.random() < 0.6
    before, after = rng.choice(_HEADS)
    shots = rng.choice((1, 1, 2, 3)) if told else rng.choice((2, 2, 3, 4))
    document: Document = []
    for shot in range(shots):
        sentence, record = world.pair(rng, 2 if small else 4)
        lead = (_instruction(rng, world) if told else "") if shot == 0 else "\n\n"
        document += [(f"{lead}{before}{sentence}{after}\n", False), (record, told or shot > 0)]
    return document
