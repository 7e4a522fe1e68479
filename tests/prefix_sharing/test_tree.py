"""The prefix tree as a pure structure: nothing lost, nothing counted twice, nothing too big."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneoff.prefix_sharing.tree import (
    PrefixTree,
    WeightedSequence,
    build_tree,
    count_common_prefix,
    count_tokens,
    pack_sequences,
    pad_to_multiple,
)

# Three token ids only: random sequences then share beginnings, repeat and contain each other.
IDS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


@st.composite
def batches(draw: st.DrawFn) -> list[WeightedSequence]:
    bodies = draw(st.lists(IDS, min_size=1, max_size=12))
    start = draw(st.lists(st.integers(0, 2), max_size=6))
    return [
        WeightedSequence(
            [*start, *body],
            draw(st.lists(st.sampled_from([0.0, 1.0, 0.5]), min_size=n, max_size=n)),
        )
        for body in bodies
        for n in [len(start) + len(body)]
    ]


SHORTEST = st.integers(1, 5)


@given(batches(), SHORTEST)
def test_unpacking_gives_back_every_sequence(batch: list[WeightedSequence], shortest: int) -> None:
    tree = build_tree(batch, shortest)
    assert [tree.sequence(i) for i in range(len(batch))] == [list(s.ids) for s in batch]


@given(batches(), SHORTEST)
def test_weights_add_up(batch: list[WeightedSequence], shortest: int) -> None:
    tree = build_tree(batch, shortest)
    assert sum(tree.weights) == pytest.approx(sum(sum(s.weights) for s in batch))
    _, _, weights = tree.targets()
    assert sum(weights) == pytest.approx(sum(sum(s.weights[1:]) for s in batch))


@given(batches(), SHORTEST)
def test_a_target_is_predicted_from_the_token_before_it(
    batch: list[WeightedSequence], shortest: int
) -> None:
    """Summed by (what was read so far, next token), tree and sequences agree."""
    tree = build_tree(batch, shortest)
    expected: dict[tuple[int, ...], float] = {}
    for sequence in batch:
        for place in range(1, len(sequence.ids)):
            key = tuple(sequence.ids[: place + 1])
            expected[key] = expected.get(key, 0.0) + sequence.weights[place]
    found: dict[tuple[int, ...], float] = {}
    for place, token, weight in zip(*tree.targets(), strict=True):
        key = (*_read(tree, place), token)
        found[key] = found.get(key, 0.0) + weight
    assert found == pytest.approx({key: w for key, w in expected.items() if w})


def _read(tree: PrefixTree, place: int) -> list[int]:
    read = []
    while place >= 0:
        read.append(tree.tokens[place])
        place = tree.previous[place]
    return read[::-1]


@given(batches(), SHORTEST)
def test_ancestors_are_a_range_and_positions_count_them(
    batch: list[WeightedSequence], shortest: int
) -> None:
    """`key <= query < end of the key's subtree` is exactly "key is an ancestor of query"."""
    tree = build_tree(batch, shortest)
    ends = [n.subtree_end for n in tree.nodes for _ in range(n.start, n.end)]
    for query in range(len(tree)):
        visible = {key for key in range(len(tree)) if key <= query < ends[key]}
        ancestors, place = set(), query
        while place >= 0:
            ancestors.add(place)
            place = tree.previous[place]
        assert visible == ancestors
        assert tree.positions[query] == len(ancestors) - 1


@given(batches())
def test_every_shared_token_is_there_once(batch: list[WeightedSequence]) -> None:
    prefixes = {tuple(s.ids[:end]) for s in batch for end in range(1, len(s.ids) + 1)}
    assert len(build_tree(batch)) == len(prefixes)


@given(batches(), SHORTEST, st.integers(1, 40), st.one_of(st.none(), st.integers(1, 4)))
def test_packs_hold_every_sequence_once_and_keep_their_size(
    batch: list[WeightedSequence], shortest: int, most_tokens: int, most: int | None
) -> None:
    groups = pack_sequences(batch, most_tokens, most, shortest)
    assert sorted(i for group in groups for i in group) == list(range(len(batch)))
    for group in groups:
        tokens = len(build_tree([batch[i] for i in group], shortest))
        assert tokens <= most_tokens or len(group) == 1
        assert most is None or len(group) <= most


@given(batches(), st.integers(1, 8))
def test_filling_up_adds_tokens_that_predict_nothing(
    batch: list[WeightedSequence], multiple: int
) -> None:
    tree = build_tree(batch)
    full = pad_to_multiple(tree, multiple)
    assert len(full) % multiple == 0
    assert len(full) - len(tree) < multiple
    assert full.targets() == tree.targets()
    assert [full.sequence(i) for i in range(len(batch))] == [list(s.ids) for s in batch]
    assert all(place < 0 or place >= len(tree) for place in full.previous[len(tree) :])


@given(st.lists(IDS, min_size=2, max_size=2))
def test_common_prefix(pair: list[list[int]]) -> None:
    a, b = pair
    length = count_common_prefix(a, b)
    assert a[:length] == b[:length]
    assert a[: length + 1] != b[: length + 1] or length == min(len(a), len(b))


def test_any_depth() -> None:
    """Each sequence continues the one before it: a chain of 3,000 nodes, no recursion."""
    batch = [WeightedSequence([7] * length, [1.0] * length) for length in range(1, 3001)]
    tree = build_tree(batch)
    assert len(tree) == 3000
    assert len(tree.nodes) == 3000
    assert tree.weights[0] == 3000


def test_what_is_drawn_in_the_module() -> None:
    batch = [WeightedSequence(list(word), [1.0] * len(word)) for word in (b"ABCD", b"ABCE", b"ABF")]
    tree = build_tree(batch)
    assert bytes(tree.tokens) == b"ABCDEF"
    assert tree.positions == [0, 1, 2, 3, 3, 2]
    assert tree.weights == [3, 3, 2, 1, 1, 1]
    assert count_tokens(batch) == 11


@pytest.mark.parametrize(
    "batch", [[], [WeightedSequence([], [])], [WeightedSequence([1, 2], [1.0])]]
)
def test_what_is_no_batch_is_refused(batch: list[WeightedSequence]) -> None:
    with pytest.raises(ValueError, match="needs at least one"):
        build_tree(batch)
