"""A model that travels to the bench is the model, and it is timed there as it would be here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cofi_tune import bench, compress, latency
from cofi_tune.config import Setup
from cofi_tune.data.encoded import ARRAYS, EncodedTask
from cofi_tune.modeling_cofi import CofiForSequenceClassification

MakeModel = Callable[..., CofiForSequenceClassification]


def read_only(packed: bench.Packed) -> bench.Packed:
    """As Ray gives it."""
    for array in packed[1].values():
        array.flags.writeable = False
    return packed


def test_a_model_travels_whole(make_model: MakeModel) -> None:
    model = make_model(layers=2, seed=3)
    there = bench.unpack(read_only(bench.pack(model)), "cpu")
    ours, theirs = model.state_dict(), there.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert there.config.heads_per_layer == model.config.heads_per_layer
    assert not there.training


def test_it_is_timed_there_as_here(
    make_model: MakeModel, toy: EncodedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "MAX_PAIRS", latency.MIN_PAIRS)
    setup = Setup(data=Path(), teacher=Path("t"), output=Path(), num_threads=1, timing="bench")
    packed = [read_only(bench.pack(make_model(layers=layers))) for layers in (1, 6)]
    rows = {name: np.array(getattr(toy.splits["dev"], name)) for name in ARRAYS}
    timed = bench.on_bench(*packed, rows, setup)
    assert [one.scenario for one in timed.latencies] == ["throughput", "latency"]
    assert timed.latencies[0].speedup > 1.5
    contract = compress.contract(toy, setup, timed.made_on)
    assert (contract["device"], contract["num_threads"], contract["alone"]) == ("cpu", 1, "yes")
    crowd = compress.contract(toy, setup.model_copy(update={"timing": "crowd"}), timed.made_on)
    assert {name for name in crowd if crowd[name] != contract[name]} == {"alone"}
