"""A Ray that was too slow to start is started once more, one that cannot start is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from torch import multiprocessing

from cofi_tune.config import StudyConfig
from cofi_tune.ray_session import RAY_ITSELF, ray_started

StudyConfigs = Callable[..., StudyConfig]


@pytest.mark.ray
@pytest.mark.long
def test_ray_that_is_late_starts_once_more_and_alone(tmp_path: Path, study_config: StudyConfigs) -> None:
    """In a process of its own: this one may have a Ray by now."""
    multiprocessing.start_processes(
        _start_late, args=(study_config(tmp_path),), nprocs=1, start_method="forkserver"
    )


def _start_late(rank: int, config: StudyConfig) -> None:
    """It ends as if its raylet took longer than 30 s; what that has started ends by itself, later."""
    from ray._private import services

    really, late = services.get_node, []

    def get_node(*args: Any, **more: Any) -> Any:
        if not late:
            late.extend(process for process in psutil.Process().children() if process.name() in RAY_ITSELF)
            raise Exception("The current node timed out during startup.")
        return really(*args, **more)

    services.get_node = get_node
    with ray_started(config, None):
        assert ray.is_initialized()
        assert late
        _, alive = psutil.wait_procs(late, timeout=300)
        assert not alive


def test_ray_that_cannot_start_is_tried_once(
    tmp_path: Path, study_config: StudyConfigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def init(**settings: Any) -> None:
        calls.append(settings)
        raise FileNotFoundError(2, "No such file or directory", "/proc/nowhere")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests have left
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with (
        pytest.raises(OSError, match="Ray does not start on this machine"),
        ray_started(study_config(tmp_path), None),
    ):
        pass
    assert len(calls) == 1
