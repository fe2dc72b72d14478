"""SIGTERM, as batch systems send it, ends a command as Ctrl-C does."""

from __future__ import annotations

import signal
from types import FrameType


def sigterm_is_ctrl_c() -> None:
    """From here on in this process."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
