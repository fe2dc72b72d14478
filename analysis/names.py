"""Names of trials, as short as they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any


def short_names(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What to call trials: without the study's name, or without what the names of all studies share."""
    studies = sorted({str(row["study"]) for row in rows})
    shared = f"{studies[0]}-" if len(studies) == 1 else _shared(studies)
    return {row["trial"]: row["trial"].removeprefix(shared) or row["trial"] for row in rows}


def _shared(studies: Sequence[str]) -> str:
    if not studies:
        return ""
    # Sorted, so that the first and the last differ most.
    pairs = zip(studies[0], studies[-1], strict=False)
    same = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return studies[0][: studies[0].rfind("-", 0, same) + 1]


def clipped(words: str, most: int = 28) -> str:
    """A text with its middle left out where it is long: ids differ at their ends."""
    half = (most - 1) // 2
    return words if len(words) <= most else f"{words[:half]}…{words[-half:]}"
