"""Training a little here says how long all of it takes: the arithmetic of it, and that it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneoff.bakeoff.plan import speed_probe
from tuneoff.bakeoff.plan.speed_probe import TrainingSpeed, measure_speed
from tuneoff.config.contenders import LocalConfig
from tuneoff.tasks import functional_representation as task
from tuneoff.tasks.samples import functional


def test_seconds_are_linear() -> None:
    speed = TrainingSpeed(per_step=0.5, per_token=0.01, per_validated_token=0.002, computed=0.25)
    assert speed.seconds(10, 1000, 400) == pytest.approx(5 + 2.5 + 0.2)
    assert speed.seconds(20, 2000, 800) == pytest.approx(2 * speed.seconds(10, 1000, 400))


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("share", [True, False])
def test_it_measures(
    method: str, share: bool, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed_probe, "TARGET_SECONDS", 0.0)
    settings = LocalConfig.model_validate(
        {
            "name": "x",
            "id": "local",
            "method": method,
            "train": {"batch_size": 16, "share_prefixes": share},
        }
    )
    examples = functional.generate()["train"][:40]
    speed = measure_speed(settings, str(tiny_base), task.SAMPLE, examples)
    assert speed.per_token > 0
    assert speed.per_step >= 0
    assert speed.per_validated_token > 0
    if share:  # every example begins with the same instruction
        assert 0.1 < speed.computed < 0.9
    else:  # padding is computed, too
        assert 1 <= speed.computed < 2
