"""The files of examples/cluster: they parse, they are what their tools take as far as can be seen
offline, and the prices in them are the price book's. No cluster was started from them here."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import tuneoff
from tuneoff.config.contenders import LocalConfig
from tuneoff.costs import price_book

FOLDER = Path(__file__).parent.parent.parent / "examples" / "cluster"
# Cards of a machine, and the sums that its comment names.
SUMS = {
    "bakeoff.yaml": (4,),
    "kuberay.yaml": (4, 8),
    "ray-aws.yaml": (8, 16),
    "skypilot.yaml": (4,),
}


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_every_file_is_looked_at() -> None:
    assert {file.name for file in FOLDER.glob("*.yaml")} == set(SUMS)


@pytest.mark.parametrize("name", SUMS)
def test_prices_are_the_books(name: str) -> None:
    hour = price_book.load_shipped().hour("H100")
    assert hour is not None
    comment = re.sub(r"\s*\n# ?", " ", (FOLDER / name).read_text())
    assert f"${hour.usd_per_hour:g} an hour" in comment or f"${hour.usd_per_hour}" in comment
    assert f"{hour.vendor}, {hour.source}, read {hour.retrieved}" in comment
    for cards in SUMS[name]:
        assert f"${cards * hour.usd_per_hour}" in comment


def test_the_bake_off_is_planned_for_what_the_machines_have() -> None:
    bakeoff = tuneoff.load(FOLDER / "bakeoff.yaml")
    for contender in bakeoff.contenders:
        if isinstance(contender, LocalConfig):
            assert contender.hardware is not None
            assert (contender.hardware.accelerator, contender.hardware.count) == ("H100", 4)
    assert {c.id for c in bakeoff.contenders} == {"local", "prompted"}


def test_the_ray_cluster() -> None:
    found = read("ray-aws.yaml")
    types = found["available_node_types"]
    assert found["head_node_type"] in types
    assert types["h100"]["resources"]["GPU"] == 8
    assert types["h100"]["max_workers"] <= found["max_workers"]
    assert any("tuneoff[" in line and "ray" in line for line in found["setup_commands"])
    assert any("--autoscaling-config" in line for line in found["head_start_ray_commands"])
    assert any("$RAY_HEAD_IP" in line for line in found["worker_start_ray_commands"])


def test_the_ray_cluster_by_rays_own_schema() -> None:
    spec = find_spec("ray")
    if spec is None or spec.origin is None:
        pytest.skip("ray is not installed")
    jsonschema = pytest.importorskip("jsonschema")
    schema = Path(spec.origin).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(read("ray-aws.yaml"), json.loads(schema.read_text()))


def test_the_manifest() -> None:
    found = read("kuberay.yaml")
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayCluster")
    spec = found["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    (workers,) = spec["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (spec["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"].endswith(spec["rayVersion"])
        assert container["resources"]["limits"] == container["resources"]["requests"]
        mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
        volumes = {volume["name"] for volume in group["template"]["spec"].get("volumes", ())}
        assert mounts == volumes
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "4"


def test_the_rented_machine() -> None:
    found = read("skypilot.yaml")
    known = {"name", "workdir", "num_nodes", "resources", "file_mounts", "setup", "run", "envs",
             "secrets"}  # fmt: skip
    assert set(found) <= known
    assert found["resources"]["accelerators"] == "H100:4"
    assert {"name", "mode"} <= set(found["file_mounts"]["/runs"])
    assert (FOLDER.parent.parent / found["envs"]["BAKEOFF"]).is_file()
    assert '"$BAKEOFF"' in found["run"]
    if find_spec("sky") is None:
        return
    jsonschema = pytest.importorskip("jsonschema")
    from sky.utils import schemas

    jsonschema.validate(found, schemas.get_task_schema())
