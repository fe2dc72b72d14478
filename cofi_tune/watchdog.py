"""Ends a process that has stopped to move: nothing in a search waits for ever."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

FILE = "hang.txt"
"""Beside a trial's results: where its threads stood when it was ended."""
REST_SECONDS = 1.0
START_SECONDS = 300.0
"""For the start of a process, imports and all, however short trials may stand still otherwise."""


class Watchdog:
    """Writes all tracebacks and ends this process, at once, when `beat` was not called for too long.

    The timer is the interpreter's own (`faulthandler`), which fires even if the process is stuck in a call
    that never returns to Python.
    """

    def __init__(self, directory: Path, seconds: float, start_seconds: float | None = None) -> None:
        """
        Args:
            directory: receives `hang.txt`.
            seconds: without a beat.
            start_seconds: before the first one; None: as many.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.seconds = seconds
        self.start_seconds = seconds if start_seconds is None else start_seconds
        self._file = (directory / FILE).open("w")
        self._last = -REST_SECONDS

    def __enter__(self) -> Watchdog:
        """Begin to watch."""
        self._wait(self.start_seconds)
        return self

    def __exit__(self, *error: object) -> None:
        """Watch no longer."""
        faulthandler.cancel_dump_traceback_later()
        self._file.close()

    def beat(self) -> None:
        """Something has moved."""
        now = time.monotonic()
        if now - self._last >= REST_SECONDS:
            self._last = now
            self._wait(self.seconds)

    def _wait(self, seconds: float) -> None:
        os.utime(self._file.fileno())  # seen by whoever waits for this process
        faulthandler.dump_traceback_later(seconds + REST_SECONDS, file=self._file, exit=True)


class GroupWatchdog:
    """Ends this process when none of the workers that it waits for has moved, or started, for too long."""

    def __init__(
        self, directory: Path, seconds: float, elsewhere: Callable[[Path], object] = lambda directory: None
    ) -> None:
        """
        Args:
            directory: of the workers' `Watchdog`.
            seconds: without a sign of theirs.
            elsewhere: asked for a sign of workers whose directory is on another machine.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.seconds = seconds
        self._file, self._elsewhere = directory / FILE, elsewhere
        self._over = threading.Event()

    def __enter__(self) -> GroupWatchdog:
        """Begin to watch."""
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Watch no longer."""
        self._over.set()

    def _watch(self) -> None:
        sign, changed = self._sign(), time.monotonic()
        # The workers' own watchdogs come first: they know where they stand.
        limit = self.seconds + 10 * REST_SECONDS
        while not self._over.wait(REST_SECONDS):
            now = time.monotonic()
            seen = self._sign()
            if seen != sign:
                sign, changed = seen, now
            elif now - changed > limit:
                with self._file.open("a") as file:
                    file.write(f"no worker started or moved for {self.seconds:g} s\n")
                os._exit(1)

    def _sign(self) -> tuple[int | None, object]:
        try:
            here = self._file.stat().st_mtime_ns
        except OSError:
            here = None
        return here, self._elsewhere(self._file.parent)


def hung(directory: Path) -> bool:
    """Whether the last process that worked for `directory` was ended by its watchdog."""
    file = directory / FILE
    return file.is_file() and file.stat().st_size > 0
