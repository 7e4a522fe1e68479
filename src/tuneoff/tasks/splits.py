"""Train, validation and test: limits, whole-group splits, and overlap between them.

Two examples overlap when their inputs are the same; they nearly overlap when the same
letters and digits remain after case, blanks and punctuation are dropped.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, cast

from tuneoff.errors import DataError
from tuneoff.records import SPLITS, Example, Split
from tuneoff.settings import Limit
from tuneoff.tasks.training_rows import HALF_PAIR, find_half_pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CARVED_FRACTION, CARVED_MOST = 0.1, 500
# Overlapping examples that an error names; more would hide them.
MOST_NAMED = 3
_ASCII_MARKS = {code: None for code in range(128) if not chr(code).isalnum()}
_LETTERS = re.compile(r"[^\W_]+")
# Finds where the examples of a split are that are wanted.
Places = Callable[[Split, Callable[[Example], bool]], Sequence[str]]


def limited(
    splits: Mapping[Split, list[Example]], limit: Limit, seed: int
) -> dict[Split, list[Example]]:
    """A seeded sample of each split that has a limit; the others stay as they are."""
    chosen: dict[Split, list[Example]] = {}
    for split in SPLITS:
        examples, most = splits[split], getattr(limit, split)
        if most is not None and most < len(examples):
            examples = random.Random(f"{seed} {split}").sample(examples, most)
        chosen[split] = examples
    return chosen


def with_validation(
    splits: Mapping[Split, list[Example]], cluster: str | None, seed: int
) -> tuple[dict[Split, list[Example]], list[str]]:
    """The splits with a tenth of train (at most 500) as validation where a task has none, and
    the line that says so. Examples of one `meta[cluster]` stay together.

    Raises:
        DataError: train is too small for that.
    """
    complete: dict[Split, list[Example]] = {split: splits.get(split) or [] for split in SPLITS}
    train = complete["train"]
    if complete["validation"] or not train:
        return complete, []
    count = carved_size(len(train))
    rest: list[Example] = []
    carved: list[Example] = []
    if cluster is not None and all(cluster in example.meta for example in train):
        rest, carved = carve_groups(train, cluster, count / len(train), seed)
    if not rest:  # no clusters, or a single one
        rest, carved = carve(train, count, seed)
    if not rest:
        raise DataError(
            f"split validation: there is no example in it, and the {len(train)} of train are too "
            "few to carve it out of; give a validation split, or more examples."
        )
    line = f"{len(carved)} validation examples were carved out of train, for the task has none."
    return {**complete, "train": rest, "validation": carved}, [line]


def carved_size(examples: int) -> int:
    """How many of so many examples are carved for a split that is not given."""
    return max(1, min(CARVED_MOST, round(CARVED_FRACTION * examples)))


def carve_groups(
    examples: Sequence[Example], key: str, fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """(rest, carved): whole groups of `meta[key]` are carved until `fraction` is reached."""
    groups = sorted({str(example.meta[key]) for example in examples})
    random.Random(seed).shuffle(groups)
    carved: set[str] = set()
    count = 0
    for group in groups:
        if count >= fraction * len(examples):
            break
        carved.add(group)
        count += sum(str(example.meta[key]) == group for example in examples)
    inside = [example for example in examples if str(example.meta[key]) in carved]
    outside = [example for example in examples if str(example.meta[key]) not in carved]
    return outside, inside


def carve(
    examples: Sequence[Example], count: int, seed: int
) -> tuple[list[Example], list[Example]]:
    """(rest, carved): `count` examples drawn at random, equal inputs staying together."""
    places = drawn([input_key(example) for example in examples], count, seed)
    inside = set(places)
    rest = [example for place, example in enumerate(examples) if place not in inside]
    return rest, [examples[place] for place in places]


def drawn(keys: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Which of the examples with these keys are carved, as their places: at least `count` drawn
    at random (all, if there are fewer), equal keys staying together."""
    ranks: dict[Hashable, int] = {}
    return drawn_ranks([ranks.setdefault(key, len(ranks)) for key in keys], count, seed)


def drawn_ranks(ranks: ArrayLike, count: int, seed: int) -> list[int]:
    """The same of keys that are numbered from 0, in the order in which they first appear."""
    import numpy as np

    of = np.asarray(ranks, dtype=np.int64)
    sizes = np.bincount(of)
    left = list(range(len(sizes)))
    random.Random(seed).shuffle(left)
    order: dict[int, int] = {}
    taken = 0
    while left and taken < count:
        rank = left.pop()
        order[rank] = len(order)
        taken += int(sizes[rank])
    places = [int(place) for place in np.flatnonzero(np.isin(of, list(order)))]
    return sorted(places, key=lambda place: order[int(of[place])])


def input_key(example: Example) -> str:
    """What makes two inputs the same."""
    return json.dumps(example.content(), sort_keys=True, ensure_ascii=False)


def near_key(example: Example) -> str:
    """What makes two inputs nearly the same: letters and digits only, one case."""
    return keep_letters(input_key(example))


def keep_letters(text: str) -> str:
    """Returns a text's letters and digits in one case."""
    folded = text.casefold()
    if folded.isascii():  # some seven times as fast
        return folded.translate(_ASCII_MARKS)
    return "".join(_LETTERS.findall(folded))


def without(examples: Iterable[Example], others: Iterable[Example]) -> list[Example]:
    """Examples whose inputs are not among the others'."""
    known = {input_key(other) for other in others}
    return [example for example in examples if input_key(example) not in known]


def repeated(ids: Iterable[str]) -> str | None:
    """The first id that is there a second time."""
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            return id
        seen.add(id)
    return None


def repeated_inputs(examples: Sequence[Example]) -> tuple[int, int]:
    """Counts the inputs that are there a second time, exactly and, of the others, nearly."""
    exact = len(examples) - len({input_key(example) for example in examples})
    return exact, len(examples) - len({near_key(example) for example in examples}) - exact


def drop_overlap(
    splits: Mapping[Split, list[Example]],
) -> tuple[dict[Split, list[Example]], list[str]]:
    """Leaves those out of train whose inputs are in validation or test, and those out of
    validation whose inputs are in test; says how many in a line each."""
    validation = without(splits["validation"], splits["test"])
    train = without(splits["train"], [*splits["validation"], *splits["test"]])
    kept: dict[Split, list[Example]] = {
        "train": train, "validation": validation, "test": splits["test"],
    }  # fmt: skip
    dropped = {split: len(splits[split]) - len(kept[split]) for split in SPLITS}
    return kept, dropped_lines(dropped)


def dropped_lines(dropped: Mapping[Split, int]) -> list[str]:
    """Says of each split how many examples were left out of it, if any."""
    later: dict[Split, str] = {"train": "validation or test", "validation": "test"}
    return [
        f"task.drop_overlap: {dropped[split]} of {split} were left out, whose inputs are in "
        f"{where}, too."
        for split, where in later.items()
        if dropped[split]
    ]


def overlaps(splits: Mapping[Split, Sequence[Example]]) -> dict[str, tuple[int, int]]:
    """For each pair of splits ("train/test"): how many of the second's inputs are in the
    first exactly, and how many more nearly."""
    counts: dict[str, tuple[int, int]] = {}
    for first, second in combinations(SPLITS, 2):
        exact = {input_key(example) for example in splits[first]}
        near = {near_key(example) for example in splits[first]}
        same = sum(input_key(example) in exact for example in splits[second])
        alike = sum(near_key(example) in near for example in splits[second])
        counts[f"{first}/{second}"] = (same, alike - same)
    return counts


def _refuse_half_pairs(split: Split, examples: Iterable[Example]) -> None:
    """Refuses what could not be written down, whatever task it comes from."""
    for example in examples:
        parts = {"id": example.id, "inputs": example.inputs, "completion": example.completion}
        place = find_half_pair({**parts, "meta": example.meta})
        if place is not None:
            raise DataError(f"split {split}: example {example.id!r}: {HALF_PAIR} ({place}).")


def check(
    splits: Mapping[Split, Sequence[Example]],
    seed_arrangement: bool,
    places: Places | None = None,
) -> list[str]:
    """Check the splits; return warnings about them, as sentences.

    Args:
        places: finds the lines of examples of a split, where they come from files.

    Raises:
        DataError: a split is empty, an id is there twice, a text holds half a surrogate pair, or
            splits overlap (which the seed experiment's own arrangement is allowed to, with a
            warning).
    """
    for split in SPLITS:
        if not splits[split]:
            raise DataError(f"split {split}: there is no example in it; it needs at least one.")
    for split in SPLITS:
        twice = repeated(example.id for example in splits[split])
        if twice is not None:
            raise DataError(f"split {split}: the id {twice!r} is there twice; ids must differ.")
        _refuse_half_pairs(split, splits[split])
    warnings: list[str] = []
    for pair, (same, alike) in overlaps(splits).items():
        first, second = cast("tuple[Split, Split]", tuple(pair.split("/")))
        if same and not seed_arrangement:
            shown = _overlapping(splits, first, second, places)
            raise DataError(
                f"splits overlap: {same} inputs of {second} are also in {first} ({shown}); take "
                f"them out of one of the two, or give task.drop_overlap: true, which leaves them "
                f"out of {first}."
            )
        if same:
            warnings.append(f"{pair}: {same} inputs are in both splits (splits: seed allows it).")
        if alike:
            warnings.append(f"{pair}: {alike} inputs differ only in case, blanks or punctuation.")
    return warnings


def _overlapping(
    splits: Mapping[Split, Sequence[Example]], first: Split, second: Split, places: Places | None
) -> str:
    """Names the first few overlapping examples of two splits, both of each pair."""
    by_input = {input_key(example): example for example in reversed(splits[first])}
    found = [each for each in splits[second] if input_key(each) in by_input]
    shown = [
        f"{_named(each, second, places)} is {_named(by_input[input_key(each)], first, places)}"
        for each in found[:MOST_NAMED]
    ]
    return "; ".join(shown) + ("; …" if len(found) > MOST_NAMED else "")


def _named(example: Example, split: Split, places: Places | None) -> str:
    """Return an example's id, and where it is."""
    found = places(split, lambda each: each == example)[:1] if places else []
    return " at ".join([repr(example.id), *found])
