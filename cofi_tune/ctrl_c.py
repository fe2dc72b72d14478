"""SIGTERM, as batch systems send it, ends a command as Ctrl-C does; so may a terminal that is closed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def sigterm_is_ctrl_c() -> None:
    """From here on in this process."""
    signal.signal(signal.SIGTERM, _interrupt)


def closed_terminal_is_ctrl_c() -> None:
    """From here on in this process, unless it was started to outlive its terminal (`nohup`)."""
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """What would end the command ends it after this: a process that is just made has to be known first."""
    heard: list[int] = []
    before = {n: signal.getsignal(n) for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, frame: heard.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if heard:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
