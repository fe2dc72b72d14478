"""What a search may spend: trials, its own time, the study's hours of GPU; whichever ends first ends it."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Clock = Callable[[], float]
GPU_SECONDS = "gpu_seconds"
"""User attribute of a trial: GPUs x seconds for which it held them, all its attempts together."""


class Holder(Protocol):
    """A trial of Optuna."""

    @property
    def number(self) -> int:
        """Its place in the study."""

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What the study keeps with it."""

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep something with it."""


@dataclass
class Budget:
    """What is left. It ends proposing only: trials that run when it is spent finish."""

    trials: int
    """Still to be asked, of the study's."""
    seconds: float | None = None
    """From now on, whatever earlier invocations took."""
    gpu_hours: float | None = None
    """Of the study's trials, over all invocations."""
    total_trials: int | None = None
    """What `--trials` asked for, if that is more than what is left."""
    clock: Clock = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        """The time runs from here."""
        self.started = self.clock()

    def spent(self, gpu_seconds: float = 0.0) -> str | None:
        """Which budget is used up, in words for a person; None while there is some of each.

        Args:
            gpu_seconds: that the study's trials have had so far.
        """
        if self.trials <= 0:
            return f"--trials {self.total_trials or 0}"
        if self.seconds is not None and self.clock() - self.started >= self.seconds:
            return f"--time-budget {in_words(self.seconds)}"
        if self.gpu_hours is not None and gpu_seconds >= 3600 * self.gpu_hours:
            return f"--gpu-hours {self.gpu_hours:g}"
        return None


def duration(text: str) -> float:
    """Seconds of `45s`, `90m`, `1.5h`, `1h30m` or `2d`: the type of a flag."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write it as 45s, 90m, 2h or 1h30m")
    return seconds


def in_words(seconds: float) -> str:
    """A length of time in two units at most, such as `1h30m`; the inverse of `duration` for round ones."""
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds >= 10 or seconds == int(seconds) else f"{seconds:.2g}s"
    small = "s" if seconds < 3600 else "m" if seconds < 2 * 86400 else "h"
    large = {"s": "m", "m": "h", "h": "d"}[small]
    whole, rest = divmod(round(seconds / UNITS[small]), UNITS[large] // UNITS[small])
    return (f"{whole}{large}" if whole else "") + (f"{rest}{small}" if rest else "")


class GpuMeter:
    """Seconds of GPU that a study's trials hold, kept with every trial so that they outlive the driver."""

    def __init__(self, gpus_per_trial: float, earlier: float = 0.0, clock: Clock = time.monotonic) -> None:
        """
        Args:
            gpus_per_trial: what one holds; with 0 nothing is counted.
            earlier: GPU seconds of all trials before this driver.
            clock: seconds.
        """
        self.gpus_per_trial, self.clock = gpus_per_trial, clock
        self._total = earlier
        self._read: dict[int, float] = {}
        """When a running trial's time was last added up, by its number."""

    @property
    def seconds(self) -> float:
        """Of all trials, those that run included."""
        running = sum(self.clock() - since for since in self._read.values())
        return self._total + self.gpus_per_trial * running

    def start(self, trial: Holder) -> None:
        """A trial takes its GPUs."""
        if self.gpus_per_trial:
            self._read[trial.number] = self.clock()

    def read(self, trial: Holder, over: bool = False) -> None:
        """Write down what a trial has had; `over`: it gives its GPUs back."""
        since = self._read.pop(trial.number, None)
        if since is None:
            return
        now = self.clock()
        held = self.gpus_per_trial * (now - since)
        self._total += held
        trial.set_user_attr(GPU_SECONDS, trial.user_attrs.get(GPU_SECONDS, 0.0) + held)
        if not over:
            self._read[trial.number] = now
