"""What happens when training goes wrong, or well: memory, divergence, convergence, search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_fine_tune import TRAIN, VALIDATION, run, settings

from tuneoff.config.contenders import LocalConfig
from tuneoff.errors import ContenderError
from tuneoff.prefix_sharing.tree import WeightedSequence
from tuneoff.records import TrainingRecord
from tuneoff.storage.run_dir import ContenderDir
from tuneoff.tasks import functional_representation as task
from tuneoff.training import trainer
from tuneoff.training.fine_tune import tune


def told(base: Path, folder: Path, chosen: LocalConfig) -> tuple[TrainingRecord, list[str]]:
    """The record, and the lines that a user sees."""
    lines: list[str] = []
    template, directory = task.SAMPLE, ContenderDir(folder)
    record = tune(chosen, str(base), TRAIN, VALIDATION, template, directory, say=lines.append)
    return record, lines


def losses(folder: Path) -> list[float]:
    return [row.validation or 0.0 for row in ContenderDir(folder).loss()]


def test_trees_and_padded_rows_train_alike(tiny_base: Path, tmp_path: Path) -> None:
    """The same losses to rounding, with a fraction of the tokens."""
    records = {}
    for name, share in (("tree", True), ("padded", False)):
        chosen = settings(method="full", train={"share_prefixes": share, "learning_rate": 1e-3})
        records[name], _ = told(tiny_base, tmp_path / name, chosen)
    assert losses(tmp_path / "tree") == pytest.approx(losses(tmp_path / "padded"), rel=1e-4)
    assert (records["tree"].tokens_computed or 0) * 2 < (records["padded"].tokens_computed or 0)


SHORT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", SHORT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_what_is_computed_at_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Packs over 300 tokens fail, as on a small card; the batch and its result stay the same."""
    chosen = settings(method="full", train={"learning_rate": 1e-3})
    told(tiny_base, tmp_path / "large", chosen)
    from tuneoff.prefix_sharing import micro_batch

    whole = micro_batch.build_tree_batch

    def small_card(sequences: list[WeightedSequence], *args: Any, **kwargs: Any) -> Any:
        made = whole(sequences, *args, **kwargs)
        if made.tokens > 300:
            raise error
        return made

    monkeypatch.setattr(micro_batch, "build_tree_batch", small_card)
    _, lines = told(tiny_base, tmp_path / "small", chosen)
    assert any("out of memory: now at most" in line for line in lines)
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), rel=1e-4)


def test_one_example_that_does_not_fit_is_an_error(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("tuneoff.prefix_sharing.micro_batch.build_tree_batch", full)
    with pytest.raises(ContenderError, match=r"an example of \d+ tokens does not fit into memory"):
        told(tiny_base, tmp_path, settings())


def test_another_error_is_not_taken_for_memory() -> None:
    assert not trainer.is_out_of_memory(RuntimeError("shapes do not match"))


def test_an_exploding_rate_stops_and_keeps_the_best(tiny_base: Path, tmp_path: Path) -> None:
    chosen = settings(
        method="full",
        train={"max_steps": 40, "learning_rate": 0.9, "warmup_steps": 6, "schedule": "constant"},
    )
    record, lines = told(tiny_base, tmp_path, chosen)
    assert record.steps < 40
    assert record.verdict in ("stopped early", "overfitting")
    assert any("worse than guessing" in line and "best checkpoint" in line for line in lines)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert record.best_step == losses(tmp_path).index(min(losses(tmp_path))) * 2 + 2


def test_until_converged_stops_with_patience(tiny_base: Path, tmp_path: Path) -> None:
    """A rate of nearly nothing gains nothing: three validations and no more."""
    chosen = settings(
        train={"max_steps": 200, "learning_rate": 1e-9, "until": "converged", "patience": 3}
    )
    record, _ = told(tiny_base, tmp_path, chosen)
    assert record.steps == 2 * (1 + 3)
    assert record.verdict == "converged"


def test_a_kill_after_patience_ran_out_trains_no_step_more(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(
        train={"max_steps": 200, "learning_rate": 1e-9, "until": "converged", "patience": 2}
    )

    def killed(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tuneoff.training.checkpoints.ModelSaver.save_final", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tiny_base, tmp_path, chosen)
    record = run(tiny_base, tmp_path, chosen)
    assert record.steps == 6


def test_search_takes_the_best_rate_and_tries_none_twice(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(method="full", train={"learning_rate": "search"})
    record, lines = told(tiny_base, tmp_path / "a", chosen)
    tried = record.learning_rates_tried
    assert set(tried) == {"1e-05", "5e-05", "0.0002", "0.001", "0.003"}
    best = min(tried, key=lambda rate: tried[rate] or 99.0)
    assert record.learning_rate == float(best) > 1e-5
    assert any(f"learning rate {best}" in line for line in lines)
    # The search leaves the model as it was: the same as naming the rate.
    named = settings(method="full", train={"learning_rate": float(best)})
    told(tiny_base, tmp_path / "b", named)
    files = [tmp_path / n / "model" / "model.safetensors" for n in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    # Cut after its first trials it goes on with the others.
    cut = ContenderDir(tmp_path / "c")
    cut.path.mkdir()
    cut.write_learning_rates({0.001: 0.5, 0.003: None})
    monkeypatch.setattr("tuneoff.training.learning_rate_search._run_trial", lambda *args: 1.0)
    again, _ = told(tiny_base, tmp_path / "c", chosen)
    assert again.learning_rate == 0.001
    assert again.learning_rates_tried["0.003"] is None


def test_tensorboard_gets_the_curve(tiny_base: Path, tmp_path: Path) -> None:
    told(tiny_base, tmp_path / "x", settings(train={"report_to": ["tensorboard"]}))
    assert list((tmp_path / "x" / "tensorboard").rglob("events.out.tfevents*"))


@pytest.mark.parametrize("switch", ["use_dora", "use_rslora"])
def test_peft_switches_reach_the_adapter(tiny_base: Path, tmp_path: Path, switch: str) -> None:
    run(tiny_base, tmp_path, settings(lora={"r": 4, switch: True}, train={"max_steps": 2}))
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written[switch] is True


def test_gradient_checkpointing_changes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    for name, on in (("off", False), ("on", True)):
        lora = {"r": 4, "dropout": 0.0}
        run(tiny_base, tmp_path / name, settings(lora=lora, train={"gradient_checkpointing": on}))
    assert losses(tmp_path / "on") == pytest.approx(losses(tmp_path / "off"), rel=1e-5)


def test_bf16_trains(tiny_base: Path, tmp_path: Path) -> None:
    run(tiny_base, tmp_path, settings(train={"precision": "bf16"}))
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_what_cannot_be_a_tree_says_so_and_trains(tmp_path: Path, tiny_base: Path) -> None:
    """A window of 8 tokens: ordinary batches, one line, the same result as asking for them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig

    torch.manual_seed(0)
    small = MistralConfig(
        vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, sliding_window=8, bos_token_id=1,
        eos_token_id=2, pad_token_id=0, max_position_embeddings=1024,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(small).save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "base")
    _, lines = told(tmp_path / "base", tmp_path / "a", settings())
    told(tmp_path / "base", tmp_path / "b", settings(train={"share_prefixes": False}))
    assert len(lines) == 1
    assert "sliding window of 8 tokens is shorter" in lines[0]
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_truncate_trains_on_what_fits_and_says_so(tiny_base: Path, tmp_path: Path) -> None:
    from tuneoff.records import Example

    long = Example("long-1", {"sentence": "far " * 300}, "depict(hut[Far])")
    lines: list[str] = []
    record = tune(
        settings(train={"truncate": True, "max_length": 128, "max_steps": 2}), str(tiny_base),
        [long, *TRAIN[:7]], VALIDATION, task.SAMPLE.drop_instruction(), ContenderDir(tmp_path),
        say=lines.append,
    )  # fmt: skip
    assert record.steps == 2
    assert any("1 train examples are too long and were cut" in line for line in lines)


def test_little_memory_means_small_packs(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With next to nothing free, one example at a time; the batch and its result stay."""
    chosen = settings(method="full", train={"learning_rate": 1e-3})
    told(tiny_base, tmp_path / "much", chosen)
    monkeypatch.setattr("tuneoff.models.memory.measure_available_bytes", lambda device: 0)
    record, _ = told(tiny_base, tmp_path / "little", chosen)
    assert losses(tmp_path / "little") == pytest.approx(losses(tmp_path / "much"), rel=1e-4)
    assert (record.tokens_computed or 0) > 4 * 8 * 60
