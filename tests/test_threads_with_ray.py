"""A worker has the threads it was given, whatever the shell or Ray would have it have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray


def test_pools_are_as_large_as_a_workers_cpus_from_its_start(tmp_path: Path, own_ray: int) -> None:
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

        scaling = ScalingConfig(num_workers=1, resources_per_worker={"CPU": own_ray})
        run = RunConfig(name="t", storage_path=str(tmp_path / "train"))
        TorchTrainer(in_train, scaling_config=scaling, run_config=run).fit()

    from ray import tune

    for trainable, cpus in ((in_tune, own_ray), (with_train, 0.01)):
        run = tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0)
        tune.Tuner(tune.with_resources(trainable, {"CPU": cpus}), run_config=run).fit()
    assert {path.name: path.read_text() for path in seen.iterdir()} == {
        "in process": f"{own_ray} {own_ray}",
        "Ray Train": f"{own_ray} {own_ray}",
    }
