"""What a search may spend, and which budget ends it."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from cofi_tune.budget import GPU_SECONDS, Budget, GpuMeter, duration, in_words


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Trial:
    """A trial as Optuna has it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.user_attrs: dict[str, Any] = {}

    def set_user_attr(self, key: str, value: Any) -> None:
        self.user_attrs[key] = value


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("2h", 7200), ("1.5h", 5400), ("1h30m", 5400), ("2d", 172800)],
)
def test_times(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "2 h", "-5m", "0s", "2h?", "nan", "1e3s", "infs"])
def test_no_times(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="45s, 90m, 2h"):
        duration(text)


def test_words() -> None:
    seconds = (0.25, 5, 59, 60, 90, 3600, 5400, 86400, 200_000)
    assert [in_words(s) for s in seconds] == [
        "0.25s",
        "5s",
        "59s",
        "1m",
        "1m30s",
        "1h",
        "1h30m",
        "24h",
        "2d8h",
    ]


def test_whichever_comes_first() -> None:
    clock = Clock()
    budget = Budget(trials=2, seconds=60, gpu_hours=1, total_trials=5, clock=clock)
    assert budget.spent() is None
    clock.now += 59
    assert budget.spent(3599) is None
    assert budget.spent(3600) == "--gpu-hours 1"
    clock.now += 1
    assert budget.spent(3600) == "--time-budget 1m"
    budget.trials = 0
    assert budget.spent() == "--trials 5"


def test_gpu_time_outlives_the_driver() -> None:
    clock = Clock()
    first, second = Trial(0), Trial(1)
    meter = GpuMeter(2, earlier=100, clock=clock)
    meter.start(first)
    clock.now += 10
    meter.start(second)
    meter.read(first)
    assert (first.user_attrs, meter.seconds) == ({GPU_SECONDS: 20}, 120)
    clock.now += 5
    assert meter.seconds == 100 + 2 * 15 + 2 * 5
    meter.read(first, over=True)
    clock.now += 5
    meter.read(second, over=True)
    meter.read(second, over=True)
    assert (first.user_attrs[GPU_SECONDS], second.user_attrs[GPU_SECONDS]) == (30, 20)
    # Another driver goes on with a trial, and adds to what it had.
    later = GpuMeter(2, earlier=50, clock=clock)
    later.start(first)
    clock.now += 1
    later.read(first, over=True)
    assert (first.user_attrs[GPU_SECONDS], later.seconds) == (32, 52)


def test_without_gpus_nothing_is_counted() -> None:
    trial = Trial(0)
    meter = GpuMeter(0)
    meter.start(trial)
    meter.read(trial, over=True)
    assert (trial.user_attrs, meter.seconds) == ({}, 0)
