"""SIGTERM, as batch systems send it, ends a command as Ctrl-C does; so may a terminal that is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def asks_first() -> Iterator[Callable[[], bool]]:
    """Inside, the first Ctrl-C or SIGTERM only asks, and the second ends the command as ever.

    Yields:
        Whether it was asked. Never in a thread, which hears no signals.
    """
    heard: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)
        # Not by print, which what was interrupted may be in the midst of.
        os.write(2, b"stopping: a checkpoint is saved first (Ctrl-C again to leave at once)\n")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(heard)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
