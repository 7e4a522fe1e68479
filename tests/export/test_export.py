"""Exporting a run's contenders: what is written is the tuned model, loads as it is, answers as
was scored, and is written whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Cli

import tuneoff
from tuneoff.errors import ConfigError, MissingExtraError
from tuneoff.storage.run_dir import lock_run_dir


def test_an_adapter_loads_on_its_base(run: Path, tiny_base: Path, tmp_path: Path) -> None:
    import peft
    from transformers import AutoTokenizer

    said: list[str] = []
    found = tuneoff.export_contender(run, "lora", "adapter", tmp_path / "out", say=said.append)
    assert found.parity is not None
    assert found.parity["passed"]
    assert found.parity["parity"]["asked"] == 12
    assert "lora: 12 of 12 answers are those that were scored. (transformers)" in said
    assert str(tiny_base) in said[0]
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == str(tiny_base)
    assert {"README.md", "adapter_model.safetensors", "tokenizer.json"} <= set(found.files)
    model: Any = peft.AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "out"))
    stored = run / "contenders" / "lora" / "seed-0" / "adapter" / "adapter_model.safetensors"
    assert (tmp_path / "out" / stored.name).read_bytes() == stored.read_bytes()
    assert model.peft_config["default"].r == 4
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) > 256


def test_a_merged_model_is_base_and_adapter(
    run: Path, tmp_path: Path, merged_by_hand: dict[str, torch.Tensor]
) -> None:
    from transformers import AutoModelForCausalLM

    found = tuneoff.export_contender(
        run, "lora", "merged", tmp_path / "out", dtype="float32", strict=True
    )
    assert found.parity is not None
    assert found.parity["parity"]["exact"]
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= set(
        found.files
    )
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, merged_by_hand[key], rtol=1e-5, atol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "merged into the base; the weights are float32" in card


def test_merged_weights_can_be_half(run: Path, tmp_path: Path) -> None:
    tuneoff.export_contender(run, "lora", "merged", tmp_path / "out", dtype="bf16")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"


def test_a_model_trained_whole_is_copied(run: Path, tmp_path: Path) -> None:
    found = tuneoff.export_contender(run, "full", "merged", tmp_path / "out", strict=True)
    stored = run / "contenders" / "full" / "model"
    assert {name: (stored / name).stat().st_size for name in found.files} == found.files
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (stored / name).read_bytes()


def test_a_gguf_file_holds_the_merged_weights(
    run: Path, tmp_path: Path, merged_by_hand: dict[str, torch.Tensor]
) -> None:
    pytest.importorskip("gguf")
    import gguf
    import numpy as np

    found = tuneoff.export_contender(run, "lora", "gguf", tmp_path / "out", outtype="f32")
    assert set(found.files) == {"README.md", "Modelfile", "lora-f32.gguf"}
    assert found.parity is not None
    assert found.parity["passed"]
    assert found.parity["parity"]["exact"]
    reader = gguf.GGUFReader(tmp_path / "out" / "lora-f32.gguf")
    stored = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for key, tensor in merged_by_hand.items():
        if key == "lm_head.weight":
            continue  # tied
        values = stored.pop(names.get_name(key, try_suffixes=(".weight",)))
        heads = {".q_proj.": 2, ".k_proj.": 1}
        for part, count in heads.items():
            if part in key:
                pairs = values.reshape(count, values.shape[0] // count // 2, 2, -1)
                values = pairs.swapaxes(1, 2).reshape(values.shape)
        np.testing.assert_allclose(values, tensor.numpy(), rtol=1e-5, atol=1e-6, err_msg=key)
    assert stored == {}
    assert "FROM ./lora-f32.gguf" in (tmp_path / "out" / "Modelfile").read_text()


def test_what_checks_a_gguf_file(run: Path, tmp_path: Path, cli: Cli) -> None:
    pytest.importorskip("gguf")
    from importlib.util import find_spec

    here = find_spec("llama_cpp") is not None
    code, out, err = cli(
        "export", run, "lora", "--format", "gguf", "--out", tmp_path / "half", "--json",
    )  # fmt: skip
    assert code == 0
    checked = json.loads(out)["parity"]
    if here:
        assert checked["by"] == "llama.cpp"
        assert checked["texts"] == checked["texts_same"] == 12
    else:
        assert checked["by"] == "its tensors, read by transformers"
        assert "llama.cpp is not here to check it (pip install llama-cpp-python)" in err
        code, _, err = cli(
            "export", run, "lora", "--format", "gguf", "--out", tmp_path / "s", "--strict"
        )
        assert code == 2
        assert "--strict: a GGUF file is checked by llama.cpp, which is not here" in err


def test_llama_cpp_answers_as_was_scored(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    found = tuneoff.export_contender(
        run, "lora", "gguf", tmp_path / "out", outtype="f32", strict=True
    )
    assert found.parity is not None
    assert (found.parity["by"], found.parity["texts_same"]) == ("llama.cpp", 12)
    assert found.parity["parity"]["asked"] == 12


def test_an_export_lies_in_the_run_unless_told(run: Path, cli: Cli) -> None:
    code, out, err = cli("export", run, "lora", "--format", "adapter")
    folder = run / "exports" / "lora-adapter"
    try:
        assert code == 0
        assert f"{folder}/adapter_config.json (" in out
        assert "12 of 12 answers" in err
        code, _, err = cli("export", run, "lora", "--format", "adapter")
        assert code == 2
        assert f"--out {folder}: the folder is not empty; give a new or an empty one." in err
    finally:
        shutil.rmtree(run / "exports")


def test_strict_keeps_nothing_that_answers_otherwise(run: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "contenders" / "full" / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "prediction": "x"}) + "\n" for row in rows))
    asked = ("export", copy, "full", "--format", "merged", "--out", tmp_path / "exports" / "full")
    code, out, err = cli(*asked, "--strict")
    assert (code, out) == (2, "")
    assert "full: 0 of 12 answers are those that were scored" in err
    assert "scored 'x', exported " in err
    assert "--strict: full does not answer as merged as it did when it was scored" in err
    assert list((tmp_path / "exports").iterdir()) == []
    code, _, err = cli(*asked)
    assert code == 0
    assert "full: 0 of 12 answers" in err
    assert "warning: full: NONE of the 12 answers is the text that was scored" in err
    path.unlink()
    other = tmp_path / "exports" / "other"
    code, _, err = cli("export", copy, "full", "--format", "merged", "--out", other)
    assert code == 0
    assert "full: not checked, for it has no answers that could be compared." in err


def test_what_a_kill_left_is_no_obstacle(run: Path, tmp_path: Path) -> None:
    killed = tmp_path / ".out.part"
    killed.mkdir()
    (killed / "half").write_text("x")
    (tmp_path / "out").mkdir()
    tuneoff.export_contender(run, "full", "merged", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (tmp_path / "out" / "half").exists()


def test_two_at_once_do_not_write_into_one_folder(run: Path, tmp_path: Path) -> None:
    with lock_run_dir(tmp_path / ".out.part"):
        (tmp_path / ".out.part" / "theirs").write_text("x")
        with pytest.raises(ConfigError, match=r"--out .*out: another process writes there"):
            tuneoff.export_contender(run, "full", "merged", tmp_path / "out")
        assert (tmp_path / ".out.part" / "theirs").exists()


@pytest.mark.parametrize(
    ("contender", "options", "sentence"),
    [
        ("lora", {"format": "onnx"}, "--format: unknown format 'onnx' (allowed: adapter, gguf"),
        ("lor", {"format": "merged"}, "CONTENDER: unknown contender 'lor'"),
        ("prompted", {"format": "merged"}, "contender prompted is prompted: nothing of it was"),
        ("recorded", {"format": "gguf"}, "contender recorded is recorded: nothing of it was"),
        ("full", {"format": "adapter"}, "was trained with all its parameters and has no adapter"),
        ("lora", {"format": "merged", "dtype": "int4"}, "--dtype: unknown dtype 'int4'"),
        ("lora", {"format": "gguf", "outtype": "q4"}, "--outtype: unknown outtype 'q4'"),
        ("lora", {"format": "adapter", "dtype": "bf16"}, "--dtype is for --format merged, not"),
        ("lora", {"format": "merged", "outtype": "f16"}, "--outtype is for --format gguf, not"),
    ],
)
def test_what_is_refused(
    run: Path, tmp_path: Path, contender: str, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tuneoff.export_contender(run, contender, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_refused(run: Path, untuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no bakeoff\.yaml and no server\.sqlite"):
        tuneoff.export_contender(tmp_path, "lora", "merged")
    with pytest.raises(ConfigError, match="no contender of it was tuned here as lora; run the"):
        tuneoff.export_contender(untuned, "lora", "merged", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="this is a file; give a new or an empty folder"):
        tuneoff.export_contender(run, "lora", "merged", tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be made"):
        tuneoff.export_contender(run, "lora", "merged", tmp_path / "file" / "out")


def test_a_base_that_is_gone(run: Path, tmp_path: Path, cli: Cli) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    file = copy / "bakeoff.yaml"
    kept = [
        line if "base:" not in line else f"{line}-gone" for line in file.read_text().splitlines()
    ]
    file.write_text("\n".join(kept) + "\n")
    code, _, err = cli("export", copy, "lora", "--format", "merged", "--out", tmp_path / "out")
    assert code == 2
    assert "there is no such folder" in err
    assert not (tmp_path / "out").exists()


def test_gguf_is_an_extra(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneoff.export import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "tuneoff\[gguf\]"'):
        tuneoff.export_contender(run, "lora", "gguf", tmp_path / "out")
