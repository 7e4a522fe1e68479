"""Train, validation and test: limits, whole-group splits, and overlap between splits.

Two examples overlap when their inputs are equal. They nearly overlap when the inputs are equal
without case, blanks and punctuation.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, cast

from tuneoff.config.base import Limit
from tuneoff.errors import DataError
from tuneoff.records import SPLITS, Example, Split
from tuneoff.tasks.training_rows import LONE_SURROGATE, find_lone_surrogate

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CARVED_FRACTION, MAX_CARVED = 0.1, 500
# The number of overlapping examples that an error names.
MAX_NAMED = 3
_ASCII_MARKS = {code: None for code in range(128) if not chr(code).isalnum()}
_LETTERS = re.compile(r"[^\W_]+")
# Returns file and line of each wanted example of a split.
PlaceFinder = Callable[[Split, Callable[[Example], bool]], Sequence[str]]


def apply_limits(
    splits: Mapping[Split, list[Example]], limit: Limit, seed: int
) -> dict[Split, list[Example]]:
    """Return a seeded sample of each split that has a limit, and the other splits whole."""
    chosen: dict[Split, list[Example]] = {}
    for split in SPLITS:
        examples, most = splits[split], getattr(limit, split)
        if most is not None and most < len(examples):
            examples = random.Random(f"{seed} {split}").sample(examples, most)
        chosen[split] = examples
    return chosen


def carve_validation(
    splits: Mapping[Split, list[Example]], cluster: str | None, seed: int
) -> tuple[dict[Split, list[Example]], list[str]]:
    """Return the splits with a validation split, and a line if it was carved.

    Where a task has no validation split, a tenth of train (at most 500) is carved. Examples of one
    `meta[cluster]` stay together.

    Raises:
        DataError: train is too small for that.
    """
    complete: dict[Split, list[Example]] = {split: splits.get(split) or [] for split in SPLITS}
    train = complete["train"]
    if complete["validation"] or not train:
        return complete, []
    count = compute_carved_size(len(train))
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


def compute_carved_size(examples: int) -> int:
    """Return the number of examples to carve for a missing split."""
    return max(1, min(MAX_CARVED, round(CARVED_FRACTION * examples)))


def carve_groups(
    examples: Sequence[Example], key: str, fraction: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return (rest, carved): whole groups of `meta[key]`, until `fraction` is reached."""
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
    """Return (rest, carved): `count` examples at random; equal inputs stay together."""
    places = draw_indices([build_input_key(example) for example in examples], count, seed)
    inside = set(places)
    rest = [example for place, example in enumerate(examples) if place not in inside]
    return rest, [examples[place] for place in places]


def draw_indices(keys: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Return the indices of at least `count` random examples; equal keys stay together.

    All are returned if there are fewer.
    """
    ranks: dict[Hashable, int] = {}
    return draw_ranked_indices([ranks.setdefault(key, len(ranks)) for key in keys], count, seed)


def draw_ranked_indices(ranks: ArrayLike, count: int, seed: int) -> list[int]:
    """Return the same as `draw_indices`, for keys numbered from 0 by first appearance."""
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


def build_input_key(example: Example) -> str:
    """Return the key that equal inputs share."""
    return json.dumps(example.content(), sort_keys=True, ensure_ascii=False)


def build_near_key(example: Example) -> str:
    """Return the key that nearly equal inputs share: letters and digits, one case."""
    return keep_letters(build_input_key(example))


def keep_letters(text: str) -> str:
    """Return a text's letters and digits in one case."""
    folded = text.casefold()
    if folded.isascii():  # about seven times as fast
        return folded.translate(_ASCII_MARKS)
    return "".join(_LETTERS.findall(folded))


def exclude_inputs(examples: Iterable[Example], others: Iterable[Example]) -> list[Example]:
    """Return the examples whose inputs are not among the others'."""
    known = {build_input_key(other) for other in others}
    return [example for example in examples if build_input_key(example) not in known]


def find_repeated_id(ids: Iterable[str]) -> str | None:
    """Return the first id that occurs twice, or None."""
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            return id
        seen.add(id)
    return None


def count_repeated_inputs(examples: Sequence[Example]) -> tuple[int, int]:
    """Return the number of repeated inputs: exact ones, and further near ones."""
    exact = len(examples) - len({build_input_key(example) for example in examples})
    return exact, len(examples) - len({build_near_key(example) for example in examples}) - exact


def drop_overlap(
    splits: Mapping[Split, list[Example]],
) -> tuple[dict[Split, list[Example]], list[str]]:
    """Return the splits without overlap, and a line per split about dropped examples.

    Train loses the inputs that are in validation or test; validation loses those that are in test.
    """
    validation = exclude_inputs(splits["validation"], splits["test"])
    train = exclude_inputs(splits["train"], [*splits["validation"], *splits["test"]])
    kept: dict[Split, list[Example]] = {
        "train": train, "validation": validation, "test": splits["test"],
    }  # fmt: skip
    dropped = {split: len(splits[split]) - len(kept[split]) for split in SPLITS}
    return kept, describe_dropped(dropped)


def describe_dropped(dropped: Mapping[Split, int]) -> list[str]:
    """Return a line for each split that lost examples."""
    later: dict[Split, str] = {"train": "validation or test", "validation": "test"}
    return [
        f"task.drop_overlap: {dropped[split]} of {split} were left out, whose inputs are in "
        f"{where}, too."
        for split, where in later.items()
        if dropped[split]
    ]


def count_overlaps(splits: Mapping[Split, Sequence[Example]]) -> dict[str, tuple[int, int]]:
    """Count the overlapping inputs of each pair of splits ("train/test"): exact, then near.

    The inputs counted are those of the second split.
    """
    counts: dict[str, tuple[int, int]] = {}
    for first, second in combinations(SPLITS, 2):
        exact = {build_input_key(example) for example in splits[first]}
        near = {build_near_key(example) for example in splits[first]}
        same = sum(build_input_key(example) in exact for example in splits[second])
        alike = sum(build_near_key(example) in near for example in splits[second])
        counts[f"{first}/{second}"] = (same, alike - same)
    return counts


def _refuse_lone_surrogates(split: Split, examples: Iterable[Example]) -> None:
    """Raise if an example holds a lone surrogate, which cannot be written as UTF-8."""
    for example in examples:
        parts = {"id": example.id, "inputs": example.inputs, "completion": example.completion}
        place = find_lone_surrogate({**parts, "meta": example.meta})
        if place is not None:
            raise DataError(f"split {split}: example {example.id!r}: {LONE_SURROGATE} ({place}).")


def check_splits(
    splits: Mapping[Split, Sequence[Example]],
    seed_arrangement: bool,
    places: PlaceFinder | None = None,
) -> list[str]:
    """Check the splits, and return warnings as sentences.

    Args:
        places: returns the lines of examples of a split that comes from a file.

    Raises:
        DataError: a split is empty, an id occurs twice, a text holds a lone surrogate, or splits
            overlap. The seed experiment's own arrangement may overlap, with a warning.
    """
    for split in SPLITS:
        if not splits[split]:
            raise DataError(f"split {split}: there is no example in it; it needs at least one.")
    for split in SPLITS:
        twice = find_repeated_id(example.id for example in splits[split])
        if twice is not None:
            raise DataError(f"split {split}: the id {twice!r} is there twice; ids must differ.")
        _refuse_lone_surrogates(split, splits[split])
    warnings: list[str] = []
    for pair, (same, alike) in count_overlaps(splits).items():
        first, second = cast("tuple[Split, Split]", tuple(pair.split("/")))
        if same and not seed_arrangement:
            shown = _describe_overlap(splits, first, second, places)
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


def _describe_overlap(
    splits: Mapping[Split, Sequence[Example]],
    first: Split,
    second: Split,
    places: PlaceFinder | None,
) -> str:
    """Return the first few overlapping examples of two splits, both of each pair."""
    by_input = {build_input_key(example): example for example in reversed(splits[first])}
    overlapping = [match for match in splits[second] if build_input_key(match) in by_input]
    shown = [
        f"{_describe_example(match, second, places)} is "
        f"{_describe_example(by_input[build_input_key(match)], first, places)}"
        for match in overlapping[:MAX_NAMED]
    ]
    return "; ".join(shown) + ("; …" if len(overlapping) > MAX_NAMED else "")


def _describe_example(example: Example, split: Split, places: PlaceFinder | None) -> str:
    """Return an example's id, with its place if that is known."""
    lines = places(split, lambda other: other == example)[:1] if places else []
    return " at ".join([repr(example.id), *lines])
