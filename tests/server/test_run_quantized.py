"""Contenders on quantized bases are served on bases that are quantized alike; what must be the
same of their answers is the metric's value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import request, server

import tuneoff
from tuneoff import prompts
from tuneoff.storage.run_dir import RunDir

pytest.importorskip("fastapi")
pytest.importorskip("bitsandbytes")
from tuneoff.inference.transformers_backend import TransformersBackend
from tuneoff.server.run_models import check_agreement, load_servable
from tuneoff.tasks.functional_representation import SAMPLE

TEXT = """\
name: quantized
task:
  id: functional_representation
  source: sample
  max_new_tokens: 12
  limit: {{train: 32, validation: 8, test: 12}}
contenders:
  - name: int8
    id: local
    base: {base}
    quantization: int8
    lora: {{r: 4, alpha: 8, target_modules: all-linear}}
    train: {{max_steps: 4, batch_size: 8, learning_rate: 1.0e-2}}
  - name: nf4
    id: local
    base: {base}
    quantization: nf4
    lora: {{r: 4, alpha: 8, target_modules: attention}}
    train: {{max_steps: 4, batch_size: 8, learning_rate: 1.0e-2}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from helpers import write_base
    from transformers import LlamaConfig, LlamaForCausalLM

    from tuneoff.tasks.samples import functional

    folder = tmp_path_factory.mktemp("quantized-run")
    texts = [example.completion for example in functional.generate()["train"][:200]]
    base = write_base(folder / "base", texts)
    # Wide enough for blocks of 64 numbers, which nf4 is made of.
    config = LlamaConfig.from_pretrained(base)
    config.hidden_size, config.intermediate_size, config.head_dim = 64, 128, 32
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(base)
    (folder / "b.yaml").write_text(TEXT.format(base=base))
    results = tuneoff.run(tuneoff.load(folder / "b.yaml"), folder / "run")
    assert [each.error for each in results.contenders] == [None, None]
    return folder / "run"


def test_served_as_they_were_scored(run: Path) -> None:
    host = TransformersBackend()
    for ready in load_servable(run):
        parity = check_agreement(host, ready)
        assert (parity.asked, parity.exact, parity.different) == (12, False, ())
        assert parity.passed
        model: Any = host.base(ready.served).model
        assert model.is_quantized
    host.close()


def test_the_metric_decides(run: Path) -> None:
    host, (ready,) = TransformersBackend(), load_servable(run, "nf4")
    first, second, *_ = ready.tuned.work.test
    # Both wrong: another text, as good. And one that had been right, and is not any more.
    ready.tuned.predictions[first.id] = tuneoff.Prediction(first.id, "something else")
    parity = check_agreement(host, ready)
    assert (parity.as_good, parity.different, parity.passed) == (1, (), True)
    assert parity.lines() == [
        "nf4: 12 of 12 answers are as right or wrong as those that were scored, 11 of them the "
        "same."
    ]
    ready.tuned.predictions[second.id] = tuneoff.Prediction(second.id, second.completion)
    parity = check_agreement(host, ready)
    assert [each[0] for each in parity.different] == [second.id]
    assert not parity.passed
    host.close()


def test_through_the_server(run: Path, tmp_path: Path) -> None:
    example = RunDir(run).examples("test")[0]
    with server(tmp_path / "data", str(run), "--strict") as (port, _):
        for name in ("int8", "nf4"):
            body = {"model": name, "prompt": prompts.render_text(example, SAMPLE), "temperature": 0,
                    "max_tokens": 12}  # fmt: skip
            status, answer = request(port, "POST", "/v1/completions", body)
            assert status == 200
            scored = RunDir(run).contender(name).predictions()[example.id].prediction
            assert answer["choices"][0]["text"] == scored
