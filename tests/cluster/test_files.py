"""The files that are shipped: fine for Ray, closed, and clear about what a user must change."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster import check

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHED = ("gpu.yaml", "gcp.yaml", "onprem.yaml")
FILES = (*LAUNCHED, "kuberay.yaml")
Texts = Callable[[str], str]


def test_every_file_is_tested() -> None:
    assert sorted(path.name for path in CLUSTER.glob("*.yaml")) == sorted(FILES)


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_takes_it(fill: Texts, name: str) -> None:
    config = yaml.safe_load(fill(name))
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    # Nothing is left to defaults that another Ray may have otherwise.
    for key, value in prepared.items():
        if key.endswith("_commands") and key not in ("head_setup_commands", "worker_setup_commands"):
            assert value == config[key]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_wrong_once_it_is_filled_in(fill: Texts, name: str) -> None:
    assert check.problems(fill(name)) == []


@pytest.mark.parametrize("name", FILES)
def test_what_must_be_changed_is_marked_and_asked_for(shipped: Texts, name: str) -> None:
    lines = shipped(name).splitlines()
    marked = [n for n, line in enumerate(lines, 1) if re.search(r"# CHANGE: \S", line)]
    assert marked
    assert marked == [n for n, line in enumerate(lines, 1) if "CHANGEME" in line and not line.startswith("#")]
    found = check.problems(shipped(name))
    asked = [int(line.split()[1].rstrip(":")) for line in found if "is a placeholder" in line]
    assert asked == marked


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_nothing_is_open(path: Path) -> None:
    if path.is_file():
        content = path.read_text(encoding="utf-8")
        assert "0.0.0.0" not in content
        assert "::/0" not in content.replace('"', "").replace(r"(?<![0-9a-fA-F:])::/0", "")


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml"])
def test_node_types(fill: Texts, name: str) -> None:
    types = yaml.safe_load(fill(name))["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0, "GPU": 0, "driver": 1000, "latency_bench": 1}
    assert types["gpu_spot"]["resources"] == types["gpu_on_demand"]["resources"] == {"CPU": 4, "GPU": 1}
    assert types["gpu_spot"]["priority"] > types["gpu_on_demand"]["priority"]
    assert [types[kind]["min_workers"] for kind in types] == [0, 0, 0]


def test_machines_of_your_own_are_all_started(fill: Texts) -> None:
    config = yaml.safe_load(fill("onprem.yaml"))
    config["provider"]["worker_ips"] = ["192.0.2.2", "192.0.2.3"]
    [node_type] = prepare_config(config)["available_node_types"].values()
    assert (node_type["min_workers"], node_type["max_workers"]) == (2, 2)


def test_several_zones(gpu: dict[str, Any]) -> None:
    assert len(gpu["provider"]["availability_zone"].split(",")) > 2


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_mounted_is_what_the_project_needs(fill: Texts, name: str) -> None:
    mounts: dict[str, str] = yaml.safe_load(fill(name))["file_mounts"]
    own = {source for source in mounts.values() if not source.startswith("~")}
    assert all((ROOT / source).exists() for source in own)
    assert {"constraints.txt", "pyproject.toml", "cofi_tune", "analysis", "search_spaces", "cluster"} <= own
    assert own == {target.removeprefix("~/cofi-tune/") for target in mounts if "cofi-tune" in target}


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_can_be_read_and_run(path: Path) -> None:
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
