"""Times a model on the cluster's bench: a Ray task that takes its `latency_bench`, so one model at a time.

Models and rows travel through Ray's object store, as arrays: the bench need not see the disk of the trial.
"""

from __future__ import annotations

from typing import Any

from cofi_tune.cluster import LATENCY_BENCH
from cofi_tune.config import Setup
from cofi_tune.data.encoded import ARRAYS, EncodedSplit
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification
from cofi_tune.process_memory import free_memory
from cofi_tune.timed import Timed, timed_here

Packed = tuple[dict[str, Any], dict[str, Any]]
"""A model: its configuration, and its weights as numpy arrays by name."""


def timed_there(
    model: CofiForSequenceClassification,
    dense: CofiForSequenceClassification,
    dev: EncodedSplit,
    setup: Setup,
) -> Timed:
    """Wait for the bench, and time a model on it; as `timed.timed_here`.

    Raises:
        ray.exceptions.RayError: it failed there.
    """
    import numpy as np
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    rows = {name: np.array(getattr(dev, name)) for name in ARRAYS}
    # Outside of the trial's placement group, which children would inherit, and which has no bench.
    outside = PlacementGroupSchedulingStrategy(placement_group=None)
    task = ray.remote(num_cpus=0, resources={LATENCY_BENCH: 1}, scheduling_strategy=outside)(on_bench)
    packed = [ray.put(pack(one)) for one in (model, dense)]
    timed: Timed = ray.get(task.remote(*packed, ray.put(rows), setup))
    return timed


def on_bench(model: Packed, dense: Packed, rows: dict[str, Any], setup: Setup) -> Timed:
    """What runs on the bench: on its GPU if the trials have some and it has one, else on its CPU.

    Args:
        model: what is shipped.
        dense: the dense model.
        rows: arrays of the dev split.
        setup: of the run.
    """
    import torch

    device = "cuda" if setup.device != "cpu" and torch.cuda.is_available() else "cpu"
    if device == "cpu" and setup.num_threads:
        torch.set_num_threads(setup.num_threads)
    there = setup.model_copy(update={"device": device})
    split = EncodedSplit(**rows)
    timed = timed_here(unpack(model, device), unpack(dense, device), split, there)
    free_memory()  # Ray times the next model in this process
    return timed


def pack(model: CofiForSequenceClassification) -> Packed:
    """A model as it travels."""
    return model.config.to_dict(), {name: t.cpu().numpy() for name, t in model.state_dict().items()}


def unpack(packed: Packed, device: str) -> CofiForSequenceClassification:
    """The inverse of `pack`; Ray's arrays are read-only, hence the copies."""
    import torch

    config, arrays = packed
    model = CofiForSequenceClassification(CofiConfig.from_dict(config))
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    return model.to(device).eval()
