"""Times what is shipped: each structure once under each contract, for a model's weights cost no time.

Times are kept as JSON beside a study's trials, named by what they are of: the sizes of every layer, the dense
model they are paired with, rows, scenarios, device, threads, versions. Those that were taken in a crowd of
trials are not: what ran beside them is not known.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cofi_tune import latency
from cofi_tune.config import Setup
from cofi_tune.data.encode import EncodedSplit
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.records import Latency

DIRECTORY = "timed"
"""Beside a study's trials."""
SIZES = ("hidden_size", "head_size", "heads_per_layer", "ffn_per_layer", "pooler_size", "num_labels")


class Timed(NamedTuple):
    """A model's times, and the machine that they were taken on: its part of a contract."""

    latencies: tuple[Latency, ...]
    made_on: dict[str, Any]
    timed_as: str | None = None
    """Id of the trial whose model was timed; None: this one's."""


Timer = Callable[[CofiForSequenceClassification, CofiForSequenceClassification, EncodedSplit, Setup], Timed]
"""Times a model beside the dense one on rows; `timed_here`, or somewhere else."""


def once(
    timer: Timer,
    model: CofiForSequenceClassification,
    dense: CofiForSequenceClassification,
    dev: EncodedSplit,
    setup: Setup,
    contract: Mapping[str, Any],
) -> Timed:
    """A model's times, or those of another one of its structure under the same contract.

    Args:
        timer: times a model.
        model: what is shipped.
        dense: the dense model.
        dev: rows to time.
        setup: `timed` is where times are kept; None: every model is timed.
        contract: all of it but what the machine says.
    """
    if setup.timed is None or setup.timing == "crowd":
        return timer(model, dense, dev, setup)
    about = {
        "structure": {name: getattr(model.config, name) for name in SIZES},
        "contract": dict(contract),
        "scenarios": [setup.scenario, *setup.scenarios],
        # A bench is another machine, the same one for as long as a driver lives.
        "machine": made_on(setup.device) if setup.timing == "alone" else None,
        "node": platform.node() if setup.timing == "alone" else setup.stop_file and setup.stop_file.name,
    }
    about = json.loads(json.dumps(about))
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    path = setup.timed / f"{digest[:32]}.json"
    return _kept(path, about, setup.output.name) or _keep(path, about, setup, timer(model, dense, dev, setup))


def _kept(path: Path, about: Mapping[str, Any], own: str) -> Timed | None:
    """What was kept; None where there is nothing, or nothing whole."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["about"] != about:
            return None
        latencies = tuple(Latency(**one) for one in raw["latencies"])
        return Timed(latencies, raw["made_on"], None if raw["trial"] == own else raw["trial"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, about: Mapping[str, Any], setup: Setup, timed: Timed) -> Timed:
    latencies = [one.__dict__ for one in timed.latencies]
    content = {"about": about, "trial": setup.output.name, "made_on": timed.made_on, "latencies": latencies}
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(prefix=".", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    os.replace(beside, path)
    return timed


def timed_here(
    model: CofiForSequenceClassification,
    dense: CofiForSequenceClassification,
    dev: EncodedSplit,
    setup: Setup,
) -> Timed:
    """Time what is shipped beside the dense model, where they are.

    Args:
        model: what is shipped.
        dense: the dense model, on the same device.
        dev: rows to time.
        setup: names scenarios and device.
    """
    scenarios = dict.fromkeys((setup.scenario, *setup.scenarios))
    return Timed(latency.measure(model, dense, dev, scenarios), made_on(setup.device))


def made_on(name: str) -> dict[str, Any]:
    """The machine's part of a contract, as it is now.

    Args:
        name: of the device that models are timed on.
    """
    device = torch.device(name)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "device_name": device_name,
        "dtype": "float32",
        "num_threads": None if device.type == "cuda" else torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _cpu_name() -> str:
    """The processor's model, where the system tells; else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
