"""Timings of a trial's model that were taken after its search: `<trial>/timings/<contract id>.json`.

One file for each contract (see `analysis.contracts`); who times again under the same one replaces it.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.contracts import contract_id
from cofi_tune.records import Latency

DIRECTORY = "timings"


@dataclass(frozen=True)
class Timing:
    """A model's times under one contract."""

    contract: Mapping[str, Any]
    latencies: tuple[Latency, ...]
    time_ms: int
    """When they were taken, since 1970."""

    @property
    def contract_id(self) -> str:
        """Names the file, the tag and the metrics."""
        return contract_id(self.contract)


def save(directory: Path, contract: Mapping[str, Any], latencies: tuple[Latency, ...]) -> Timing:
    """Keep the timings of a model; the file is whole or not there.

    Args:
        directory: of the trial.
        contract: what they are comparable under.
        latencies: one for each scenario.

    Raises:
        OSError: they cannot be written.
    """
    path = directory / DIRECTORY / f"{contract_id(contract)}.json"
    before = [timing.time_ms for timing in read(directory) if timing.contract_id == path.stem]
    # Later than what it replaces even if the clock was put back: the latest point is the one that counts.
    timing = Timing(contract, latencies, max([time.time_ns() // 1_000_000, *(ms + 1 for ms in before)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(asdict(timing), indent=2), encoding="utf-8")
    beside.replace(path)
    return timing


def read(directory: Path) -> list[Timing]:
    """All timings of a trial's model, in the order of their contracts' names; a damaged file is left out.

    Args:
        directory: of the trial; one that was never timed again has none.
    """
    found = []
    for path in sorted((directory / DIRECTORY).glob("*.json")):
        try:
            found.append(_read(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".split("\n", 1)[0]
            warnings.warn(f"{path} is left out, since it cannot be read ({reason})", stacklevel=2)
    return found


def _read(path: Path) -> Timing:
    raw = json.loads(path.read_text(encoding="utf-8"))
    latencies = tuple(Latency(**one) for one in raw["latencies"])
    for one in latencies:
        numbers = [value for name, value in asdict(one).items() if name != "scenario"]
        if not all(math.isfinite(value) and value > 0 for value in numbers):
            raise ValueError(f"a time of {one.scenario} that is none")
    timing = Timing(dict(raw["contract"]), latencies, int(raw["time_ms"]))
    if timing.contract_id != path.stem:
        raise ValueError("its contract is not that of its name")
    return timing
