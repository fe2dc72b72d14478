"""Whether a search fits on a cluster: what is there, what may come, and what never will."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import AuthenticationError, RaySystemError
from ray.train import ScalingConfig

from cofi_tune.cluster import MANY, Cluster, check_answers, fitted, fitted_to_memory, joining, where_timed
from cofi_tune.config import StudyConfig


def test_address_where_nothing_listens_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"--address {address}: no Ray cluster .* on a node of it"):
            check_answers(address)
    with socket.create_server(("127.0.0.1", 0)) as there:
        check_answers(f"127.0.0.1:{there.getsockname()[1]}")


HEAD = {"memory": 1e9, "driver": 1.0, "latency_bench": 1.0}
GPU_NODE = {"CPU": 8.0, "GPU": 1.0}


def config(
    workers: int = 1, cpus: int = 1, gpus: float = 1.0, concurrency: int = 0, trials: int = 16
) -> StudyConfig:
    return StudyConfig(
        name="s",
        task="cola",
        source={},
        model="tiny",
        trials=trials,
        epochs=1.0,
        teacher_epochs=1.0,
        base_learning_rate=1e-3,
        workers_per_trial=workers,
        concurrency=concurrency,
        cpus_per_worker=cpus,
        gpus_per_worker=gpus,
        output=Path("runs"),
        tracking_uri="",
        storage="",
    )


def at_once(cluster: Cluster, **asked: Any) -> tuple[int, list[str]]:
    notes: list[str] = []
    return fitted(config(**asked), cluster, notes.append).concurrency, notes


@pytest.mark.parametrize(
    ("asked", "trials"),
    [
        ({}, 3),
        ({"gpus": 0.25}, 12),
        ({"gpus": 0.25, "cpus": 4}, 6),
        ({"workers": 2}, 1),
        ({"workers": 3, "cpus": 8}, 1),
        ({"gpus": 0.0, "workers": 0, "cpus": 3}, 6),
        ({"gpus": 0.25, "trials": 5}, 5),
    ],
)
def test_as_many_as_fit_on_nodes_that_are_there(asked: dict[str, Any], trials: int) -> None:
    found, notes = at_once(Cluster((HEAD, GPU_NODE, GPU_NODE, GPU_NODE)), **asked)
    assert found == trials
    assert notes == [f"trials at a time: {trials}, on 4 nodes with 24 CPUs and 3 GPUs in all"]


def test_what_waits_takes_a_share_of_a_cpu_where_no_node_is_for_it() -> None:
    asked = {"gpus": 0.0, "cpus": 4}
    assert at_once(Cluster(({"CPU": 8.0},)), **asked)[0] == 1
    assert at_once(Cluster(({"CPU": 8.0}, HEAD)), **asked)[0] == 2
    assert at_once(Cluster(({"CPU": 8.0},)), **asked | {"workers": 0})[0] == 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"workers": 4}, "a trial needs 4 processes with 1 CPUs and 1 GPUs each"),
        ({"gpus": 2.0}, "1 processes with 1 CPUs and 2 GPUs each"),
        ({"cpus": 9}, "1 processes with 9 CPUs and 1 GPUs each"),
    ],
)
def test_what_can_never_run_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^--address: .*{words}, and this cluster never has that free"):
        at_once(Cluster((HEAD, GPU_NODE, GPU_NODE, GPU_NODE)), **asked)
    kinds = ((HEAD, 1), (GPU_NODE, 3))
    with pytest.raises(ValueError, match=r"at most 1 of 0 CPUs, 0 GPUs \+ 3 of 8 CPUs, 1 GPUs"):
        at_once(Cluster((HEAD,), kinds, grows=True), **asked)


def test_an_autoscaler_that_tells_is_believed() -> None:
    assert at_once(Cluster((HEAD,), ((GPU_NODE, 4),), grows=True), trials=9)[0] == 4
    assert at_once(Cluster((HEAD,), ((GPU_NODE, MANY), (HEAD, 1)), grows=True), trials=9)[0] == 9


def test_where_it_does_not_tell_the_user_is() -> None:
    found, [note] = at_once(Cluster((HEAD,), grows=True), workers=8)
    assert found == 1
    assert note.endswith("what its autoscaler may add is not known: for more, give --concurrency")
    assert at_once(Cluster((HEAD,), grows=True), concurrency=40) == (40, [])


def test_more_than_fit_wait() -> None:
    found, [note] = at_once(Cluster((HEAD, GPU_NODE)), concurrency=3)
    assert found == 3
    assert note == "--concurrency 3: this cluster runs 1 at a time; the others wait"


def test_memory_of_the_nodes_limits_how_many_run() -> None:
    notes: list[str] = []
    nodes = tuple({**GPU_NODE, "memory": memory * 1e9} for memory in (7.0, 2.0, 16.0))

    def at_a_time(concurrency: int, cluster: Cluster) -> int:
        asked = config(gpus=0.5, concurrency=concurrency)
        return fitted_to_memory(asked, cluster, 3 * 10**9, notes.append).concurrency

    assert at_a_time(6, Cluster(nodes)) == 4
    said = "trials at a time: 4 instead of 6: each needs about 4.2 GB, and there are 25.0 GB for trials"
    assert notes == [said]
    assert at_a_time(4, Cluster(nodes)) == 4
    assert at_a_time(6, Cluster(nodes, grows=True)) == 6, "what may come is not known"
    assert at_a_time(2, Cluster((GPU_NODE,))) == 2, "nor what this node has"
    assert len(notes) == 1
    assert at_a_time(2, Cluster(nodes[1:2])) == 1
    assert "it is tried all the same" in notes[1]


@pytest.mark.parametrize(
    ("asked", "cluster", "where"),
    [
        ({"gpus": 0.0, "concurrency": 1}, None, "alone"),
        ({"gpus": 0.0, "concurrency": 2}, None, "crowd"),
        ({"gpus": 1.0, "concurrency": 4}, None, "alone"),
        ({"gpus": 0.5, "concurrency": 4}, None, "crowd"),
        ({"gpus": 0.5, "concurrency": 1}, None, "alone"),
        ({"gpus": 0.0, "concurrency": 1}, Cluster((GPU_NODE,)), "crowd"),
        ({"gpus": 1.0, "concurrency": 2}, Cluster((GPU_NODE,)), "alone"),
        ({"gpus": 0.5, "concurrency": 2}, Cluster((GPU_NODE, HEAD)), "bench"),
        ({"gpus": 0.5, "concurrency": 2}, Cluster((GPU_NODE,), ((HEAD, 1),), grows=True), "bench"),
    ],
)
def test_where_models_are_timed(asked: dict[str, Any], cluster: Cluster | None, where: str) -> None:
    notes: list[str] = []
    assert where_timed(config(**asked), cluster, notes.append) == where
    assert len(notes) == (where == "crowd")


def test_a_cluster_that_is_not_there_or_lets_nobody_in_and_a_ray_that_does_not_start() -> None:
    errors = [ConnectionError("nothing at 10.0.0.1:6379\nmore"), AuthenticationError("wrong token")]
    for error in (*errors, RaySystemError("Failed to connect to GCS.")):
        with (
            pytest.raises(
                OSError, match=r"^--address 10.0.0.1:6379: no Ray cluster .*RAY_AUTH_TOKEN_PATH\)$"
            ),
            joining("10.0.0.1:6379"),
        ):
            raise error
        with pytest.raises(OSError, match=r"^Ray does not start on this machine \(.*\)"), joining(None):
            raise error
    with pytest.raises(OSError, match="timed out during startup"), joining(None):
        raise Exception("The current node timed out during startup.")
    with pytest.raises(RuntimeError, match="ours"), joining("10.0.0.1:6379"):
        raise RuntimeError("ours")


def test_ray_takes_parts_of_gpus() -> None:
    scaling = ScalingConfig(num_workers=1, use_gpu=True, resources_per_worker={"CPU": 1, "GPU": 0.5})
    assert scaling._resources_per_worker_not_none == {"CPU": 1, "GPU": 0.5}
