"""A worker has the threads it was given, whatever the shell or Ray would have it have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cofi_tune.config import StudyConfig
from cofi_tune.ray_session import ray_started

pytestmark = pytest.mark.ray

CPUS = 2


def test_pools_are_as_large_as_a_workers_cpus_from_its_start(
    tmp_path: Path, study_config: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()

    # Within the test, so that they travel by value.
    def see(who: str) -> None:
        import os

        import torch

        (seen / who).write_text(f"{os.environ['OMP_NUM_THREADS']} {torch.get_num_threads()}")

    def in_tune(config: dict[str, Any]) -> None:
        see("in process")

    def in_train(config: dict[str, Any]) -> None:
        see("Ray Train")

    def with_train(config: dict[str, Any]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": CPUS})
        run = RunConfig(name="t", storage_path=str(tmp_path / "train"))
        TorchTrainer(in_train, scaling_config=scaling, run_config=run).fit()

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from ray import tune

    with ray_started(study_config(tmp_path, cpus_per_worker=CPUS), None):
        for trainable, cpus in ((in_tune, CPUS), (with_train, 0.01)):
            run = tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0)
            tune.Tuner(tune.with_resources(trainable, {"CPU": cpus}), run_config=run).fit()
    assert {path.name: path.read_text() for path in seen.iterdir()} == {
        "in process": f"{CPUS} {CPUS}",
        "Ray Train": f"{CPUS} {CPUS}",
    }
