"""What contenders ask of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tuneoff.cluster.resources import (
    build_resource_request,
    count_answer_workers,
    count_cards_per_worker,
    count_training_processes,
    needs_more,
)
from tuneoff.config.contenders import LocalConfig

CPUS = {"CPU": 4.0}
H100S = {"CPU": 64.0, "GPU": 8.0, "accelerator_type:H100": 1.0}


def local(hardware: dict[str, Any] | None = None, **more: Any) -> LocalConfig:
    return LocalConfig.model_validate({"name": "a", "id": "local", "hardware": hardware, **more})


def test_without_hardware_it_is_a_card_where_there_are_any() -> None:
    assert build_resource_request(local(), CPUS).options() == {"num_cpus": 1}
    assert build_resource_request(local(), H100S).options() == {
        "num_cpus": 1, "num_gpus": 1, "accelerator_type": None,
    }  # fmt: skip


def test_a_named_accelerator_is_asked_for_by_the_clusters_own_spelling() -> None:
    wanted = build_resource_request(local({"accelerator": "h100", "count": 4}), H100S)
    assert wanted.options(4) == {"num_cpus": 1, "num_gpus": 4, "accelerator_type": "H100"}
    assert not needs_more(wanted, [H100S], in_one=True)
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
    assert needs_more(build_resource_request(local(hardware), resources), [resources], in_one=False)


def test_cards_in_several_machines_train_together_but_hold_no_model_of_vllms() -> None:
    one = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:H100": 1.0}
    wanted = build_resource_request(local({"accelerator": "H100", "count": 2}), one)
    assert not needs_more(wanted, [one, one], in_one=False)
    assert needs_more(wanted, [one, one], in_one=True)


def test_several_cards_train_together_and_answer_each_for_itself() -> None:
    settings = local({"accelerator": "H100", "count": 4})
    wanted = build_resource_request(settings, H100S)
    assert (count_training_processes(settings, wanted), count_answer_workers(settings, wanted)) == (
        4,
        4,
    )
    assert count_cards_per_worker(settings, wanted) == 1
    # vLLM lays one model over all of them.
    vllm = settings.model_copy(update={"backend": "vllm"})
    assert (count_answer_workers(vllm, wanted), count_cards_per_worker(vllm, wanted)) == (1, 4)


def test_processors_train_together_only_when_told() -> None:
    settings = local({"count": 2})
    assert count_training_processes(settings, build_resource_request(settings, CPUS)) == 1
    told = local({"count": 2}, train={"parallel": "ddp"})
    assert count_training_processes(told, build_resource_request(told, CPUS)) == 2
