"""What `--model` takes."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

RANDOM_SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "medium": (8, 512)}
"""`--model` names with random weights: layers and hidden units (Turc et al., 2019, arXiv:1908.08962);
heads of 64, FFN four times hidden."""


def check_model(model: str) -> None:
    """Refuse what can be neither a size, nor a directory, nor a hub id; asks no network.

    Raises:
        ValueError: naming the nearest size.
    """
    if model in RANDOM_SIZES or Path(model).is_dir():
        return
    near = difflib.get_close_matches(model, RANDOM_SIZES, n=1)
    if near:
        raise ValueError(f"--model {model}: did you mean {near[0]}? (known sizes: {', '.join(RANDOM_SIZES)})")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model) or model.startswith("."):
        raise ValueError(f"--model {model}: no such directory, and not a hub id")
