"""One contender, several trainings: their settings, folders and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneoff.config.contenders import LocalConfig, PromptedConfig, TrainConfig
from tuneoff.contenders.base import ContenderContext
from tuneoff.contenders.variants import list_variants, take_fraction
from tuneoff.progress import SilentProgress
from tuneoff.prompts import Template
from tuneoff.records import Example
from tuneoff.storage.run_dir import ContenderDir

TRAIN = [Example(str(i), {"sentence": str(i)}, str(i)) for i in range(40)]


def local(**fields: Any) -> LocalConfig:
    return LocalConfig.model_validate({"name": "lora", "id": "local", **fields})


def work(folder: Path) -> ContenderContext:
    some = Template("", "", "", "", "")
    return ContenderContext(
        folder, TRAIN, TRAIN, TRAIN, some, "full", 8, ContenderDir(folder), SilentProgress()
    )


def test_usually_there_is_one_in_the_contenders_own_folder(tmp_path: Path) -> None:
    for settings in (local(seed=7), PromptedConfig(name="p", id="prompted", base="tiny")):
        (only,) = list_variants(settings)
        mine = work(tmp_path)
        assert only.build_context(mine) == mine
        assert (only.get_name, only.seed, only.fraction) == ("", None, 1)
        assert only.settings == settings


def test_seeds_come_first_and_parts_are_of_the_first_one(tmp_path: Path) -> None:
    found = list_variants(local(seeds=(5, 3), learning_curve=(1, 0.5, 0.25)))
    assert [(t.get_name, t.settings.seed) for t in found] == [
        ("seed 5", 5),
        ("seed 3", 3),
        ("part 0.25", 5),
        ("part 0.5", 5),
    ]
    folders = [t.get_dir(ContenderDir(tmp_path)).path.name for t in found]
    assert folders == ["seed-5", "seed-3", "part-0.25", "part-0.5"]
    assert [len(t.build_context(work(tmp_path)).train) for t in found] == [40, 40, 10, 20]
    assert [t.settings.name for t in found][1:3] == ["lora (seed 3)", "lora (part 0.25)"]
    assert all(t.settings.seeds is t.settings.learning_curve is None for t in found)


def test_a_curve_alone_leaves_the_contenders_own_training_where_it_was(tmp_path: Path) -> None:
    own, half = list_variants(local(seed=4, learning_curve=(0.5,)))
    assert own.get_dir(ContenderDir(tmp_path)).path == tmp_path
    assert own.settings.name == "lora"
    assert half.settings.seed == 4


def test_what_counts_steps_shrinks_with_the_part() -> None:
    train = TrainConfig(max_steps=100, warmup_steps=10, evaluate_every=1)
    whole, part_ = list_variants(local(train=train, learning_curve=(0.25,)))
    assert whole.settings.train == train
    scaled = part_.settings.train
    assert (scaled.max_steps, scaled.warmup_steps, scaled.evaluate_every) == (25, 2, 1)
    _, by_epochs = list_variants(local(train=TrainConfig(epochs=2.0), learning_curve=(0.25,)))
    assert by_epochs.settings.train == TrainConfig(epochs=2.0)


def test_parts_are_nested_random_and_of_the_seed() -> None:
    quarter, half = take_fraction(TRAIN, 0.25, 0), take_fraction(TRAIN, 0.5, 0)
    ids = [example.id for example in half]
    assert {example.id for example in quarter} < set(ids)
    assert ids == sorted(ids, key=int), "they stay in their order"
    assert ids != [example.id for example in TRAIN[:20]]
    assert take_fraction(TRAIN, 0.5, 1) != half
    assert take_fraction(TRAIN, 0.001, 0) == take_fraction(TRAIN, 1 / 40, 0)
    assert take_fraction(TRAIN, 1.0, 0) == TRAIN
