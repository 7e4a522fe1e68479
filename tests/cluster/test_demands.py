"""What contenders ask of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tuneoff.cluster.demands import cards_in_one, demand, lacking, shards, together
from tuneoff.contender_settings import LocalSettings

CPUS = {"CPU": 4.0}
H100S = {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0}


def local(hardware: dict[str, Any] | None = None, **more: Any) -> LocalSettings:
    return LocalSettings.model_validate({"name": "a", "id": "local", "hardware": hardware, **more})


def test_without_hardware_it_is_a_card_where_there_are_any() -> None:
    assert demand(local(), CPUS).options() == {"num_cpus": 1}
    assert demand(local(), H100S).options() == {
        "num_cpus": 1, "num_gpus": 1, "accelerator_type": None,
    }  # fmt: skip


def test_a_named_accelerator_is_asked_for_by_the_clusters_own_spelling() -> None:
    wanted = demand(local({"accelerator": "h100", "count": 4}), H100S)
    assert wanted.options(4) == {"num_cpus": 1, "num_gpus": 4, "accelerator_type": "H100"}
    assert not lacking(wanted, [H100S], in_one=True)
    assert str(wanted) == "4 × H100"


@pytest.mark.parametrize(
    ("hardware", "resources"),
    [
        ({"accelerator": "H100", "count": 16}, H100S),
        ({"accelerator": "A40"}, H100S),
        ({"accelerator": "H100"}, CPUS),  # an autoscaler may bring it
    ],
)
def test_what_the_cluster_lacks_is_found_out(
    hardware: dict[str, Any], resources: dict[str, float]
) -> None:
    assert lacking(demand(local(hardware), resources), [resources], in_one=False)


def test_cards_in_several_machines_train_together_but_hold_no_model_of_vllms() -> None:
    one = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0}
    wanted = demand(local({"accelerator": "H100", "count": 2}), one)
    assert not lacking(wanted, [one, one], in_one=False)
    assert lacking(wanted, [one, one], in_one=True)


def test_several_cards_train_together_and_answer_each_for_itself() -> None:
    settings = local({"accelerator": "H100", "count": 4})
    wanted = demand(settings, H100S)
    assert (together(settings, wanted), shards(settings, wanted)) == (4, 4)
    assert cards_in_one(settings, wanted) == 1
    # vLLM lays one model over all of them.
    vllm = settings.model_copy(update={"backend": "vllm"})
    assert (shards(vllm, wanted), cards_in_one(vllm, wanted)) == (1, 4)


def test_processors_train_together_only_when_told() -> None:
    settings = local({"count": 2})
    assert together(settings, demand(settings, CPUS)) == 1
    told = local({"count": 2}, train={"parallel": "ddp"})
    assert together(told, demand(told, CPUS)) == 2
