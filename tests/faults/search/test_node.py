"""A node that goes takes nothing with it but the steps since the last checkpoint."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from cofi_tune import checkpoint

pytestmark = pytest.mark.faults


@pytest.fixture
def cluster(search: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A head that runs nothing, and one node that does."""
    for name, value in search.start_environment().items():
        monkeypatch.setenv(name, value)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


def test_lost_node(search: Any, cluster: Any, undisturbed: Any) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    search.flags = ["--address", cluster.address, "--workers-per-trial", "0", "--gpus-per-worker", "0"]
    process: subprocess.Popen[str] = search.start()
    text = search.until(process, "trial 0000 prune")
    checkpoints = search.output / "s" / "trials" / "s-0000" / checkpoint.DIRECTORY
    deadline = time.monotonic() + 30
    while checkpoint.latest_step(checkpoints) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    text += process.communicate(timeout=240)[0]
    assert process.returncode == 0, text
    assert "it goes on from its last checkpoint" in text
    assert search.reasons() == [None, None]
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()
