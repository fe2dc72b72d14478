"""Sizes of files as people write them: `4GiB`, `512MB`."""

from __future__ import annotations

import argparse
import re

UNITS = {
    "B": 1,
    **{f"{prefix}B": 1000**n for n, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}iB": 1024**n for n, prefix in enumerate("KMGT", 1)},
}


def size(text: str) -> int:
    """Bytes of a size with its unit; 0 for `off` and `0`."""
    if text in ("off", "0"):
        return 0
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)", text)
    unit = next((n for name, n in UNITS.items() if found and name.lower() == found[2].lower()), None)
    if found is None or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give one such as 4GiB, 512MB, or off")
    return int(float(found[1]) * unit)


def as_text(num_bytes: int) -> str:
    """For a person, in units of 1024; three digits."""
    unit, name = next(
        ((n, name) for name in ("TiB", "GiB", "MiB", "KiB") if num_bytes >= (n := UNITS[name])), (1, "B")
    )
    number = num_bytes / unit
    return f"{number:.0f} {name}" if number >= 100 or unit == 1 else f"{number:.3g} {name}"
