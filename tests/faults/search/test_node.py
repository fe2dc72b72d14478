"""A node that goes takes nothing with it but the steps since the last checkpoint."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from ray.cluster_utils import Cluster

from cofi_tune import attempts, checkpoint

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture
def cluster(search: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A head that runs nothing, and one node that does."""
    for name, value in search.start_environment().items():
        monkeypatch.setenv(name, value)
    head = {"num_cpus": 0, "resources": {"driver": 1, "latency_bench": 1}}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def until(true: Callable[[], Any], seconds: float = 300) -> Any:
    """What it returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def checkpoints(search: Any, trial: int = 0) -> Any:
    return search.output / "s" / "trials" / f"s-{trial:04d}" / checkpoint.DIRECTORY


def trains(node: Any) -> bool:
    """Whether a worker of a trial runs on it."""
    [raylet] = node.all_processes["raylet"]
    below = psutil.Process(raylet.process.pid).children(recursive=True)
    for one in below:
        with contextlib.suppress(psutil.Error):  # it has just ended
            if "RayTrainWorker" in " ".join(one.cmdline()):
                return True
    return False


def on_three_nodes(search: Any, cluster: Any, undisturbed: Any) -> tuple[Any, str, list[Any]]:
    """A search with two workers for each trial, in the middle of its first one: what it said, its nodes."""
    search.trials = undisturbed.trials
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    cluster.wait_for_nodes()
    search.flags = ["--address", cluster.address, "--workers-per-trial", "2", "--gpus-per-worker", "0"]
    process = search.start()
    text = search.until(process, "trial 0000 prune")
    until(lambda: checkpoint.latest_step(checkpoints(search)) > 0)
    return process, text, nodes


def check_done(search: Any, undisturbed: Any, process: Any, text: str) -> None:
    """Every trial finished, once, from where it was, and was timed on the bench."""
    assert process.returncode == 0, text
    assert "trials at a time: 1, on 4 nodes with 3 CPUs and 0 GPUs in all" in text
    assert search.reasons() == [None, None]
    search.check_trials()
    for trial in range(2):
        steps = [step for step, _, _ in search.curve(trial)]
        assert steps == [step for step, _, _ in undisturbed.curve(trial)], "each report once, in order"
    for trial in search.study.trials:
        contract = trial.user_attrs["outcome"]["measurement"]["contract"]
        assert (contract["alone"], contract["num_threads"]) == ("yes", 1)


def begun(search: Any, trial: int = 0) -> list[int]:
    """The steps that the attempts at a trial started from."""
    path = search.output / "s" / "trials" / f"s-{trial:04d}" / attempts.FILE
    return [step for step, _ in json.loads(path.read_text())["attempts"]]


def test_lost_node_of_three(search: Any, cluster: Any, undisturbed: Any) -> None:
    process, text, nodes = on_three_nodes(search, cluster, undisturbed)
    cluster.remove_node(next(node for node in nodes if trains(node)), allow_graceful=False)
    cluster.add_node(num_cpus=1)
    text += process.communicate(timeout=600)[0]
    check_done(search, undisturbed, process, text)
    assert "it goes on from its last checkpoint" in text
    first, *later = begun(search)
    assert first == 0
    assert len(later) >= 1
    assert all(step > 0 for step in later), "the lost trial went on from a checkpoint"
    assert begun(search, 1) == [0]


def test_node_whose_end_is_announced(search: Any, cluster: Any, undisturbed: Any) -> None:
    process, text, nodes = on_three_nodes(search, cluster, undisturbed)
    node = next(node for node in nodes if trains(node))
    notice = ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    notice += ["--reason-message", "spot", "--deadline-remaining-seconds", "3", "--address", cluster.address]
    drained = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *notice]
    subprocess.run(drained, check=True, capture_output=True, timeout=600)
    cluster.add_node(num_cpus=1)
    until(lambda: not trains(node))
    cluster.remove_node(node, allow_graceful=True)
    text += process.communicate(timeout=600)[0]
    check_done(search, undisturbed, process, text)
    assert begun(search) == [0], "the same attempt: nothing was charged"


def test_lost_node(search: Any, cluster: Any, undisturbed: Any) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    search.flags = ["--address", cluster.address, "--workers-per-trial", "0", "--gpus-per-worker", "0"]
    process: subprocess.Popen[str] = search.start()
    text = search.until(process, "trial 0000 prune")
    until(lambda: checkpoint.latest_step(checkpoints(search)) > 0)
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    text += process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    assert "it goes on from its last checkpoint" in text
    assert search.reasons() == [None, None]
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()
