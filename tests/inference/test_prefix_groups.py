"""Prompts are put together again from their runs and what is their own."""

from __future__ import annotations

import random

from tuneoff.inference.prefix_groups import group_prompts

ROOT, LEFT, RIGHT = list(range(100)), list(range(200, 240)), list(range(300, 340))


def test_runs_and_rows_are_the_prompts() -> None:
    draw = random.Random(0)
    prompts = [
        [
            *ROOT,
            *draw.choice([LEFT, RIGHT, []]),
            *draw.choices(range(400, 500), k=draw.randrange(9)),
        ]
        for _ in range(60)
    ]
    runs, rows = group_prompts(prompts, least_saved=64)
    assert len(runs) == 3
    for row in rows:
        shared = [token for run in row.path for token in runs[run].tokens]
        assert shared + row.own_tokens == prompts[row.prompt]
        assert row.position == len(shared)
        assert row.own_tokens
    assert sorted(row.prompt for row in rows) == list(range(60))
    for index, run in enumerate(runs):
        assert run.path[-1] == index
        assert run.position == sum(len(runs[before].tokens) for before in run.path[:-1])
        assert run.user_count == sum(index in row.path for row in rows)


def test_rows_of_a_run_are_neighbours_longest_first() -> None:
    prompts = [[*side, *[500 + n] * n] for n in range(1, 30) for side in (LEFT, RIGHT)]
    runs, rows = group_prompts(prompts, least_saved=64)
    assert len(runs) == 2
    paths = [row.path for row in rows]
    assert paths == sorted(paths)
    lengths = [len(row.own_tokens) for row in rows if row.path == paths[0]]
    assert lengths == sorted(lengths, reverse=True)


def test_what_saves_little_is_not_shared() -> None:
    prompts = [[*ROOT, 1], [*ROOT, 2]]
    assert len(group_prompts(prompts, least_saved=100)[0]) == 1
    runs, rows = group_prompts(prompts, least_saved=101)
    assert runs == []
    assert [row.own_tokens for row in rows] == prompts
    # A run that is not kept goes to the runs below it.
    prompts = [[*ROOT, *LEFT, n] for n in range(400, 410)] + [[*ROOT, 1]]
    runs, rows = group_prompts(prompts, least_saved=1100)
    assert [run.tokens for run in runs] == [[*ROOT, *LEFT]]


def test_the_last_token_is_always_ones_own() -> None:
    runs, rows = group_prompts([ROOT, ROOT, [*ROOT, 1], [7]], least_saved=10)
    assert [run.tokens for run in runs] == [ROOT[:-1]]
    assert {row.prompt: row.own_tokens for row in rows} == {0: [99], 1: [99], 2: [99, 1], 3: [7]}
