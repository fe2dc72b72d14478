"""What is filled in, and what no machine of this size can do."""

from __future__ import annotations

import pytest

from cofi_tune.machine import Machine, Share, check_device, share, this_machine, workers_on_gpus

OPEN = {"workers_per_trial": None, "cpus_per_worker": None, "gpus_per_worker": None, "concurrency": None}


def test_lone_cpu_runs_in_process_on_all_of_it() -> None:
    assert share(Machine(2, 0), cluster=False, **OPEN) == Share(0, 2, 0.0, 1)


def test_gpus_are_all_used() -> None:
    assert share(Machine(16, 4), cluster=False, **OPEN) == Share(1, 4, 1.0, 4)
    assert share(Machine(16, 4), cluster=False, **{**OPEN, "workers_per_trial": 2}) == Share(2, 4, 1.0, 2)
    assert share(Machine(16, 1), cluster=False, **{**OPEN, "gpus_per_worker": 0.5}) == Share(1, 8, 0.5, 2)


def test_cpus_are_shared() -> None:
    assert share(Machine(8, 0), cluster=False, **{**OPEN, "concurrency": 4}) == Share(0, 2, 0.0, 4)
    assert share(Machine(1, 0), cluster=False, **{**OPEN, "workers_per_trial": 1}) == Share(1, 1, 0.0, 1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"concurrency": 3}, r"--concurrency 3 x --cpus-per-worker 1 needs 3 CPUs, this machine has 2"),
        ({"cpus_per_worker": 3}, "needs 3 CPUs"),
        (
            {"workers_per_trial": 2, "cpus_per_worker": 2},
            r"x --workers-per-trial 2 x --cpus-per-worker 2 needs 4",
        ),
        ({"gpus_per_worker": 1.0}, "needs 1 GPUs, this machine has none that torch can use"),
    ],
)
def test_impossible_requests_name_what_to_change(asked: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        share(Machine(2, 0), cluster=False, **{**OPEN, **asked})


def test_a_cluster_is_not_this_machine() -> None:
    assert share(Machine(2, 0), cluster=True, **{**OPEN, "concurrency": 8}).workers_per_trial == 1


def test_this_machine_has_a_cpu() -> None:
    assert this_machine().cpus >= 1


@pytest.mark.parametrize(
    ("device", "gpus", "words"),
    [
        ("gpu", 1, "give cpu, cuda or cuda:N"),
        ("cuda:x", 1, "give cpu, cuda or cuda:N"),
        ("cuda", 0, "has no GPU that torch can use; leave it out"),
        ("cuda:2", 2, "the last GPU of this machine is cuda:1"),
    ],
)
def test_a_device_that_is_not_there(
    device: str, gpus: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cofi_tune.machine.this_machine", lambda: Machine(2, gpus))
    with pytest.raises(ValueError, match=f"^--device {device}: .*{words}$"):
        check_device(device)


def test_a_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cofi_tune.machine.this_machine", lambda: Machine(2, 2))
    for device in ("cpu", "cuda", "cuda:0", "cuda:1"):
        check_device(device)


@pytest.mark.parametrize(
    ("gpus", "each", "workers"),
    [
        (1, 0.5, 2),
        (2, 0.4, 4),
        (1, 0.1, 10),
        (1, 0.3333, 3),
        (3, 0.25, 12),
        (4, 1.0, 4),
        (5, 2.0, 2),
        (0, 0.5, 0),
    ],
)
def test_a_part_of_a_gpu_lies_on_one_gpu(gpus: int, each: float, workers: int) -> None:
    assert workers_on_gpus(gpus, each) == workers
    if gpus:
        asked = {**OPEN, "gpus_per_worker": each}
        assert share(Machine(64, gpus), cluster=False, **asked).concurrency == workers


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus_per_worker": 1.5}, "--gpus-per-worker 1.5: above 1, Ray gives whole GPUs; give 1 or 2"),
        ({"gpus_per_worker": 0.001}, "give 0.01 or more"),
        (
            {"gpus_per_worker": 0.5, "workers_per_trial": 2},
            "give --gpus-per-worker 1 or --workers-per-trial 1",
        ),
        (
            {"gpus_per_worker": 0.4, "concurrency": 5},
            "--concurrency 5 x .* x --gpus-per-worker 0.4 needs",
        ),
    ],
)
def test_parts_of_gpus_that_cannot_be(asked: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        share(Machine(64, 2), cluster=False, **{**OPEN, **asked})
    if "concurrency" not in asked:
        with pytest.raises(ValueError, match=words):
            share(Machine(2, 0), cluster=True, **{**OPEN, **asked})
