"""Maps values to pixels, with round ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

LOG_FROM = 4.0
"""Ratio of largest to smallest speedup from which an axis counts in doublings."""


@dataclass(frozen=True)
class Axis:
    """One axis of a picture: `low` is at pixel `start`, `high` at pixel `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value, cut off at the ends."""
        low, high, value = (math.log2(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values, about five."""
        if self.log:
            return doublings(self.low, self.high)
        step = _round_step((self.high - self.low) / 6)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def doublings(low: float, high: float) -> list[float]:
    """The powers of two between two positive numbers."""
    exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return [2.0**exponent for exponent in exponents]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
