"""How a search ends before its time: on Ctrl-C or SIGTERM, or because nothing can start."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ray import tune

GRACE_SECONDS = 20.0
"""For running trials to write a checkpoint and say so."""


class Interruption(tune.Stopper):
    """Asks the workers to stop, and ends everything once they have, or after a while."""

    def __init__(self, stop_file: Path, starved: Callable[[], bool] = lambda: False) -> None:
        """
        Args:
            stop_file: what the workers look for.
            starved: whether trials have waited for their resources for too long.
        """
        self.stop_file = stop_file
        self.running: Callable[[], bool] = lambda: False
        """Whether any trial still is."""
        self.starved = starved
        self.requested = False
        self._deadline = 0.0

    def request(self) -> None:
        """Stop as soon as the running trials are safe."""
        if not self.requested:
            self.requested = True
            self._deadline = time.monotonic() + GRACE_SECONDS
            with contextlib.suppress(OSError):
                self.stop_file.touch()

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """No trial is stopped for its results."""
        return False

    def stop_all(self) -> bool:
        """Asked by Tune in every round."""
        if self.starved():
            return True
        return self.requested and (not self.running() or time.monotonic() > self._deadline)


@contextlib.contextmanager
def signals(stopper: Interruption, note: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the search in order, the second at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        if stopper.requested:
            raise KeyboardInterrupt
        stopper.request()
        name = signal.Signals(number).name
        note(f"stopping on {name}; running trials save a checkpoint first (Ctrl-C again to leave at once)")

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
