"""Figures as a person reads them, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def score(row: Mapping[str, Any]) -> str:
    """A score with its interval, where there is one."""
    if row["score"] is None:
        return ""
    if row["score_low"] is None:
        return f"{row['score']:.3f}"
    return f"{row['score']:.3f} ({row['score_low']:.3f} to {row['score_high']:.3f})"


def speedup(timing: Mapping[str, float | None]) -> str:
    """A speedup with the quartiles of its paired timings, where they were kept."""
    if timing["low"] is None or timing["high"] is None:
        return f"{timing['speedup']:.2f}x"
    return f"{timing['speedup']:.2f}x ({timing['low']:.2f} to {timing['high']:.2f})"


def percent(share: float | None) -> str:
    """A share in percent; nothing where it is not known."""
    return "" if share is None else f"{100 * share:.3g} %"


def whole(number: int | None) -> str:
    """A whole number with its thousands apart."""
    return "" if number is None else f"{number:,}"
