"""Outputs on a cluster: a directory that some node does not see is refused, a bucket needs no shared disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cofi_tune import shared

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture
def cluster() -> Any:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.shutdown()  # one that other tests have left
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_nodes_say_whether_they_see_the_output(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    shared.refuse_unshared(tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())
    # Another directory in each process: as a disk of its own is for each node.
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"2 of 2 nodes do not see.*give one that all nodes share"):
        shared.refuse_unshared(Path("/proc/self/cwd/runs"))
    assert not list((tmp_path / "runs").iterdir())


START = """
mkdir -p "$1" && mount -t tmpfs tmpfs "$1" && shift && exec "$@"
"""


@pytest.fixture
def far(in_bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A head that runs nothing, and a node for which the driver's working copy is a disk of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a node with a disk of its own needs root's unshare")
    environment = in_bucket.start_environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    head = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", head.address, "--block"]
    command += ["--num-cpus", "2", "--node-ip-address", "127.0.0.1", "--dashboard-agent-listen-port", "0"]
    with (tmp_path / "node.log").open("wb") as log:
        node = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", START, "sh", str(tmp_path / "cache"), *command],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 300
    while sum(one["Alive"] for one in head.global_state.node_table()) < 2:
        assert node.poll() is None, (tmp_path / "node.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield head
    in_bucket.end_all()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)
    node.wait()
    head.shutdown()


def test_search_on_a_node_that_shares_no_disk(in_bucket: Any, far: Any, undisturbed: Any) -> None:
    in_bucket.flags += ["--address", far.address, "--workers-per-trial", "1", "--gpus-per-worker", "0"]
    text = in_bucket.run()
    assert "goes on from its last checkpoint" not in text
    for trial in range(2):
        steps = [step for step, _, _ in in_bucket.curve(trial)]
        # Its teacher was made with two threads, which shows in the seventh digit.
        assert steps == [step for step, _, _ in undisturbed.curve(trial)]
        directory = in_bucket.output / "s" / "trials" / f"s-{trial:04d}"
        assert not (directory / "model").exists(), "it was made elsewhere"
        assert (directory / "plan.json").is_file()
        assert "model" in in_bucket.place.names(directory)
    assert in_bucket.reasons() == [None, None]
    assert in_bucket.place.directories(in_bucket.output / "s") == ["trials"], "and nothing of Ray's"
