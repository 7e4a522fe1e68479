"""A sample of functional representation: sentences about mountain huts become calls.

`I found that Velora lies in the Ulmeck massif and has a peat stove.` becomes `depict(hut[Velora],
massif[Ulmeck], stove[peat])`. Attributes stand in the order of `ATTRIBUTES`, whatever the order of
the sentence. Flags are yes or no. List values keep the order of the sentence. Every other value is
copied from the sentence.
"""

from __future__ import annotations

import random

from tuneoff.records import Example, Split
from tuneoff.tasks.samples.names import list_all_name_words, list_name_words

INSTRUCTION = (
    "Rewrite as act(attribute[value, value], ...). "
    "Acts: depict, endorse, recheck, caution, canvass, reserve. Attributes in order: hut, massif, "
    "erected, tariff, stove, supper, gear, sauna, hounds, verdict."
)
FUNCTIONS = ("depict", "endorse", "recheck", "caution", "canvass", "reserve")
ATTRIBUTES = (
    "hut", "massif", "erected", "tariff", "stove", "supper", "gear", "sauna", "hounds", "verdict",
)  # fmt: skip
SIZES: dict[Split, int] = {"train": 900, "validation": 150, "test": 200}
GENERIC = frozenset(("gear",))

ENUMERATIONS: dict[str, tuple[str, ...]] = {
    "stove": ("tiled", "peat", "pellet", "paraffin", "cast-iron"),
    "supper": ("goulash", "dumplings", "barley broth", "polenta", "strudel", "buckwheat noodles"),
    "gear": ("crampons", "snowshoes", "toboggans", "carabiners", "gaiters", "avalanche probes"),
    "verdict": ("superb", "decent", "mediocre", "dismal"),
}
# Nobody endorses a dismal hut, and nobody warns of a superb one.
VERDICTS = {"endorse": ("superb", "decent"), "caution": ("mediocre", "dismal")}
# A second word that about a third of the huts have in their name.
EPITHETS = ("Fold", "Notch", "Cairn", "Scree", "Saddle", "Corrie")

FRAMES: dict[str, tuple[str, ...]] = {
    "depict": (
        "The guidebook says that {hut} {clauses}.",
        "Up there the hut {hut} {clauses}.",
        "About {hut}: it {clauses}.",
        "As for {hut}, this hut {clauses}.",
        "Here is what I found on {hut}: it {clauses}.",
        "{hut} is a hut that {clauses}.",
    ),
    "endorse": (
        "You would love {hut}, which {clauses}.",
        "Why not hike up to {hut}, which {clauses}?",
        "My favorite is {hut}: it {clauses}.",
        "Try {hut}, because it {clauses}.",
        "I warmly endorse {hut}, a hut that {clauses}.",
        "Do stay at {hut}: it {clauses}.",
    ),
    "recheck": (
        "Did you say {hut}, which {clauses}?",
        "So you mean {hut}, the hut that {clauses}?",
        "Just to recheck, is {hut} the hut that {clauses}?",
        "Was it {hut}, the one that {clauses}?",
        "Am I right that {hut} {clauses}?",
    ),
    "caution": (
        "Beware of {hut}: it {clauses}.",
        "Think twice about {hut}, which {clauses}.",
        "A word of caution, {hut} {clauses}.",
        "Better avoid {hut}, a hut that {clauses}.",
        "Do not forget that {hut} {clauses}.",
    ),
    "canvass": (
        "Would you like a hut that {clauses}?",
        "Do you enjoy a hut that {clauses}?",
        "Are you after a hut that {clauses}?",
        "How do you feel about a hut that {clauses}?",
        "Does it matter to you if a hut {clauses}?",
        "Could a hut suit you that {clauses}?",
    ),
    "reserve": (
        "Please hold two beds at {hut}, which {clauses}.",
        "Reserve {hut} for us, the hut that {clauses}.",
        "We want to book {hut}, as it {clauses}.",
        "Put us down for {hut}, since it {clauses}.",
        "I will take {hut}, the one that {clauses}.",
    ),
}
# Verb phrases, so that any of them can follow "it", "which" or a name.
CLAUSES: dict[str, tuple[str, ...]] = {
    "massif": (
        "lies in the {} massif",
        "belongs to the {} massif",
        "looks out on the {} massif",
        "sits below the peaks of {}",
        "stands high above {}",
    ),
    "erected": (
        "was erected in {}",
        "dates from {}",
        "has stood since {}",
        "goes back to {}",
        "first let hikers in during {}",
    ),
    "tariff": (
        "costs {} crowns",
        "asks {} crowns a night",
        "has a tariff of {} crowns",
        "charges {} crowns per bed",
        "wants {} crowns from each guest",
    ),
    "stove": (
        "has a {} stove",
        "is warmed by a {} stove",
        "keeps a {} stove lit",
        "dries boots over a {} stove",
        "relies on its {} stove",
    ),
    "supper": (
        "serves {}",
        "offers {} for supper",
        "dishes up {}",
        "feeds its guests {}",
        "has {} on the menu",
    ),
    "gear": (
        "lends {}",
        "rents out {}",
        "has {} to borrow",
        "hands {} to climbers",
        "keeps {} as spare gear",
    ),
    "verdict": (
        "gets a {} verdict",
        "is called {} by hikers",
        "strikes most guests as {}",
        "counts as {}",
        "was rated {}",
    ),
}
FLAG_CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "sauna": {
        "yes": (
            "has a sauna",
            "comes with a sauna",
            "lets you sweat in its sauna",
            "owns a sauna",
            "boasts a small sauna",
        ),
        "no": (
            "has no sauna",
            "comes without a sauna",
            "lacks a sauna",
            "never had a sauna",
            "does not offer a sauna",
        ),
    },
    "hounds": {
        "yes": (
            "welcomes hounds",
            "lets hounds in",
            "is fine with hounds",
            "allows hounds",
            "takes hounds too",
        ),
        "no": (
            "bans hounds",
            "keeps hounds out",
            "is closed to hounds",
            "forbids hounds",
            "takes no hounds",
        ),
    },
}


def generate(seed: int = 0) -> dict[Split, list[Example]]:
    """Return the three splits.

    No sentence occurs twice; no hut or massif is in two splits.
    """
    rng = random.Random(seed)
    seen: set[str] = set()
    splits: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    for split, examples in splits.items():
        names = list_name_words(split)
        while len(examples) < SIZES[split]:
            function = FUNCTIONS[len(examples) % len(FUNCTIONS)]
            sentence, completion = _generate_pair(function, names, rng)
            if sentence in seen:
                continue
            seen.add(sentence)
            name = f"functional-{split}-{len(examples):04d}"
            meta = {"function": function}
            examples.append(Example(name, {"sentence": sentence}, completion, meta))
    return splits


def content_words() -> frozenset[str]:
    """Return words that a pretraining corpus must not hold: lower case, four letters or more."""
    texts = [*FUNCTIONS, *ATTRIBUTES, *EPITHETS]
    texts += [value for values in ENUMERATIONS.values() for value in values]
    words = {word for text in texts for word in text.lower().replace("-", " ").split()}
    return frozenset(word for word in words if len(word) >= 4) - GENERIC | list_all_name_words()


def templates() -> tuple[str, ...]:
    """Return the instruction, sentence frames and clauses, verbatim."""
    flags = [clauses for choices in FLAG_CLAUSES.values() for clauses in choices.values()]
    groups = [*FRAMES.values(), *CLAUSES.values(), *flags]
    return (INSTRUCTION, *(text for group in groups for text in group))


def _generate_pair(function: str, names: tuple[str, ...], rng: random.Random) -> tuple[str, str]:
    """Return a sentence and its call."""
    hut, massif = rng.sample(names, 2)
    if rng.random() < 1 / 3:
        hut = f"{hut} {rng.choice(EPITHETS)}"
    has_hut = function != "canvass"
    count = rng.choice((1, 2, 2, 3, 3, 4) if has_hut else (2, 2, 3, 3))
    chosen = rng.sample(ATTRIBUTES[1:], count)
    # Mostly in the order of the answer; a third of the sentences ask for reordering.
    if rng.random() < 2 / 3:
        chosen.sort(key=ATTRIBUTES.index)
    values = {name: _choose_values(function, name, massif, rng) for name in chosen}
    clauses = [_choose_clause(name, values[name], rng) for name in chosen]
    sentence = rng.choice(FRAMES[function]).format(hut=hut, clauses=_join_clauses(clauses))
    if has_hut:
        values["hut"] = [hut]
    slots = [f"{name}[{', '.join(values[name])}]" for name in ATTRIBUTES if name in values]
    return sentence, f"{function}({', '.join(slots)})"


def _choose_values(function: str, attribute: str, massif: str, rng: random.Random) -> list[str]:
    """Return the values of one attribute; only lists have more than one."""
    if attribute == "massif":
        return [massif]
    if attribute == "erected":
        return [str(rng.randint(1860, 2019))]
    if attribute == "tariff":
        return [str(rng.randint(12, 98))]
    if attribute in FLAG_CLAUSES:
        return [rng.choice(("yes", "no"))]
    if attribute == "verdict":
        return [rng.choice(VERDICTS.get(function, ENUMERATIONS["verdict"]))]
    is_list = attribute in ("supper", "gear")
    return rng.sample(ENUMERATIONS[attribute], rng.randint(1, 2) if is_list else 1)


def _choose_clause(attribute: str, values: list[str], rng: random.Random) -> str:
    if attribute in FLAG_CLAUSES:
        return rng.choice(FLAG_CLAUSES[attribute][values[0]])
    return rng.choice(CLAUSES[attribute]).format(" and ".join(values))


def _join_clauses(clauses: list[str]) -> str:
    *first, last = clauses
    return f"{', '.join(first)} and {last}" if first else last
