"""Which training examples a prompted contender shows, where system texts differ."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tuneoff.config.contenders import LocalConfig, PromptedConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.shots import NO_SHOTS, find_shot_indices, select_shots
from tuneoff.progress import SilentProgress
from tuneoff.prompts import CHAT_PASS_THROUGH, join_system_texts
from tuneoff.records import Example
from tuneoff.storage.run_dir import NULL_DIR

LOUD, BACK, RARE = "Answer in capitals.", "Answer backwards.", "Answer in Latin."


def asked(number: int, system: str | None) -> Example:
    turns = [] if system is None else [{"role": "system", "content": system}]
    return Example(str(number), {"messages": [*turns, {"role": "user", "content": "q"}]}, "a")


def prompted(shots: int = 3, seed: int = 1) -> PromptedConfig:
    return PromptedConfig(name="p", id="prompted", base="tiny", shots=shots, seed=seed)


def work(train: list[Example], test: list[Example]) -> ContenderContext:
    return ContenderContext(
        folder=Path(), train=train, validation=[], test=test, template=CHAT_PASS_THROUGH,
        prompt="full", max_new_tokens=8, directory=NULL_DIR, progress=SilentProgress(),
    )  # fmt: skip


def test_shots_are_those_of_the_same_instruction_as_far_as_there_are_any() -> None:
    train = [asked(n, RARE if n == 13 else (LOUD, BACK)[n % 2]) for n in range(20)]
    test = [asked(100, LOUD), asked(101, RARE), asked(102, "Answer twice."), asked(103, None)]
    shots = select_shots(prompted(), work(train, test))
    shown = [
        Counter(join_system_texts(shot) for shot in shots.select_for(example)) for example in test
    ]
    assert shown[0] == {LOUD: 3}
    assert shown[1][RARE] == 1
    assert shown[1].total() == 3
    assert shots.select_for(test[1])[0].id == "13"
    assert len({shot.id for shot in shots.select_for(test[1])}) == 3
    # Nobody has such an instruction, so they are those that everybody would be shown.
    assert shots.select_for(test[2]) == shots.select_for(test[3]) == shots.usual
    # What one example is shown has nothing to do with the others of its test set.
    assert select_shots(prompted(), work(train, test[:1])).select_for(test[0]) == shots.select_for(
        test[0]
    )
    assert select_shots(prompted(), work(train, test)) == shots
    assert select_shots(prompted(seed=2), work(train, test)) != shots


def test_where_all_are_instructed_alike_the_draw_is_the_one_it_was() -> None:
    for system in (LOUD, None):
        train = [asked(n, system) for n in range(20)]
        shots = select_shots(prompted(), work(train, [asked(100, LOUD), asked(101, None)]))
        assert [shot.id for shot in shots.select_for(asked(100, LOUD))] == ["4", "18", "2"]
        assert shots.by_system == {}


def test_as_many_are_shown_as_there_are() -> None:
    test = [asked(9, LOUD)]
    assert select_shots(prompted(shots=0), work([asked(0, LOUD)], test)) is NO_SHOTS
    local = LocalConfig(name="l", id="local", base="tiny")
    assert select_shots(local, work([asked(0, LOUD)], test)) is NO_SHOTS
    few = [asked(0, BACK), asked(1, LOUD)]
    assert [shot.id for shot in select_shots(prompted(), work(few, test)).select_for(test[0])] == [
        "1",
        "0",
    ]
    assert find_shot_indices(prompted(), [], test).collect() == set()
