"""Later timings on disk: whole, replaced by newer ones, and never trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.contracts import contract_id
from cofi_tune import fields, timings
from cofi_tune.messages import Asked, Outcome
from cofi_tune.records import TIMED, Latency

HERE = {"device": "cpu", "num_threads": 2, "timed": "again"}
THERE = {"device": "cuda", "device_name": "some GPU", "num_threads": None, "timed": "again"}


def latency(speedup: float) -> tuple[Latency, ...]:
    return (Latency("throughput", speedup, 1.0, speedup, speedup, speedup, 9, 32, 64),)


def test_one_file_for_each_contract(tmp_path: Path) -> None:
    assert timings.read(tmp_path) == []
    first, there = (timings.save(tmp_path, contract, latency(2.0)) for contract in (HERE, THERE))
    assert timings.read(tmp_path) == [first, there]
    again = timings.save(tmp_path, HERE, latency(3.0))
    assert again.time_ms > first.time_ms
    assert timings.read(tmp_path) == [again, there]
    names = {path.name for path in (tmp_path / "timings").iterdir()}
    assert names == {f"{contract_id(contract)}.json" for contract in (HERE, THERE)}


def test_a_clock_that_was_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = timings.save(tmp_path, HERE, latency(2.0))
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000)
    assert timings.save(tmp_path, HERE, latency(3.0)).time_ms == first.time_ms + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"latencies": [{"scenario": "throughput"}]},
        {"latencies": None},
        {"contract": {"device": "another"}},
        {"contract": None},
        {"time_ms": "soon"},
        {"speedup": float("nan")},
        {"latency_ms": -1.0},
        {"dense_ms": "fast"},
        None,
    ],
)
def test_a_damaged_file_is_left_out(tmp_path: Path, changes: dict[str, Any] | None) -> None:
    good = timings.save(tmp_path, THERE, latency(2.0))
    timings.save(tmp_path, HERE, latency(2.0))
    path = tmp_path / "timings" / f"{contract_id(HERE)}.json"
    raw = json.loads(path.read_text())
    for name, value in (changes or {}).items():
        (raw if name in raw else raw["latencies"][0])[name] = value
    path.write_text(json.dumps(raw) if changes else path.read_text()[:100])
    with pytest.warns(UserWarning, match=f"{path.name} is left out"):
        assert timings.read(tmp_path) == [good]


def test_a_run_says_them_behind_their_contracts_id(tmp_path: Path) -> None:
    timed = timings.save(tmp_path, HERE, latency(2.0))
    key = contract_id(HERE)
    points = fields.of_timing(timed)
    assert (f"{key}/throughput/speedup", 2.0, timed.time_ms, 0) in points
    assert len(points) == len(TIMED)
    known = fields.of_trial(Asked("s-0000", {}, {}), Outcome.failed("lost"), [], timed=[timed])
    assert not any(name.startswith("timing.") for name in known.tags)
