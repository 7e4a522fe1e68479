"""A finished run whose contenders can be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tuneoff

TEXT = """\
name: exported
task:
  id: functional_representation
  source: sample
  max_new_tokens: 12
  limit: {{train: 32, validation: 8, test: 12}}
contenders:
  - {{name: prompted, id: prompted, base: {base}}}
  - {{name: recorded, id: recorded, predictions: answers.jsonl}}
  - name: lora
    id: local
    base: {base}
    seeds: [0, 1]
    lora: {{r: 4, alpha: 8, target_modules: all-linear}}
    train: {{max_steps: 6, batch_size: 8, learning_rate: 1.0e-2}}
  - name: full
    id: local
    base: {base}
    method: full
    train: {{max_steps: 4, batch_size: 8, learning_rate: 1.0e-2}}
"""


@pytest.fixture(scope="session")
def run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported-run")
    file = folder / "b.yaml"
    file.write_text(TEXT.format(base=tiny_base))
    from tuneoff.tasks.samples import functional

    rows = [{"id": e.id, "prediction": "x"} for e in functional.generate()["test"]]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tuneoff.run(tuneoff.load(file), folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def untuned(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it is before anything was tuned."""
    folder = tmp_path_factory.mktemp("untuned")
    for path in (run / "bakeoff.yaml", *(run / "data").iterdir()):
        copy = folder / path.relative_to(run)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return folder


@pytest.fixture
def merged_by_hand(run: Path, tiny_base: Path) -> Any:
    """The lora contender's weights, base and adapter put together in float32 one by one."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    folder = run / "contenders" / "lora" / "seed-0" / "adapter"
    pairs = load_file(folder / "adapter_model.safetensors")
    for key, a in pairs.items():
        if ".lora_A." in key:
            own = key.removeprefix("base_model.model.").replace(".lora_A", "")
            state[own] += 8 / 4 * pairs[key.replace("lora_A", "lora_B")] @ a
    return state
