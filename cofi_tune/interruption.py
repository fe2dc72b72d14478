"""How a search ends before its time: on Ctrl-C or SIGTERM, or because nothing can start or Ray is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from ray import tune

from cofi_tune import attempts
from cofi_tune.terminal import ENVIRONMENT_EXIT, INTERRUPTED_EXIT

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE_SECONDS = 60.0
GRACE_SECONDS = 20.0
"""For running trials to write a checkpoint and say so."""
LOOK_SECONDS = 0.2
RAY_ENDED = "Ray was ended from outside; what is finished is kept, and the same command goes on"


class Interruption(tune.Stopper):
    """Asks the workers to stop, and ends everything once they have, or after a while."""

    def __init__(self, stop_file: Path, note: Callable[[str], None], command: str = "") -> None:
        """
        Args:
            stop_file: what the workers look for; its name is this driver's alone.
            note: tells the user.
            command: that goes on with the search.
        """
        self.stop_file, self.note, self.command = stop_file, note, command
        self.running: Callable[[], list[str]] = list
        """Ids of the trials that are on their way."""
        self.look: Callable[[], None] = lambda: None
        """Called in every round."""
        self.asked: Callable[[], None] = lambda: None
        """Called, in a thread, once the stop file is there."""
        self.requested = False
        self.blocked: str | None = None
        """What keeps the search from going on, and the remedy."""
        self._deadline = 0.0
        self._signals = 0

    def __getstate__(self) -> dict[str, object]:
        """Nothing: the Tuner pickles its stopper, and nobody may bring it back from there."""
        return {}

    def request(self, blocked: str | None = None) -> None:
        """Stop as soon as the running trials are safe.

        Args:
            blocked: why, if nobody asked for it.
        """
        self.blocked = self.blocked or blocked
        if not self.requested:
            self.requested = True
            self._deadline = time.monotonic() + GRACE_SECONDS
            with contextlib.suppress(OSError):
                self.stop_file.touch()
            threading.Thread(target=self.asked, daemon=True).start()

    def listen(self) -> None:
        """Take the signals; again once Ray has started, which takes them for itself."""
        for number in SIGNALS:
            signal.signal(number, self._heard)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt
        self.request()
        name = signal.Signals(number).name
        text = f"stopping on {name}: running trials save a checkpoint (Ctrl-C again to leave at once)"
        # In a thread, since what was interrupted may be in the midst of printing, where nobody prints twice.
        threading.Thread(target=self.note, args=(text,), daemon=True).start()

    @contextlib.contextmanager
    def leaving_when(self, is_alone: Callable[[], bool]) -> Iterator[None]:
        """Inside, the search ends if the Ray that runs its trials is gone: killed, or by a SIGTERM to all.

        Whatever asks such a Ray hangs for a minute, or for ever. A trial that runs needs none to save a
        checkpoint; as after a kill, the next driver clears up.
        """
        over = threading.Event()
        threading.Thread(target=self._watch, args=(is_alone, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _watch(self, is_alone: Callable[[], bool], over: threading.Event) -> None:
        while not is_alone():
            if over.wait(LOOK_SECONDS):
                return
        status = INTERRUPTED_EXIT
        if not self.requested:
            status = ENVIRONMENT_EXIT
            self.note("Ray was ended from outside: trials that still run save a checkpoint")
            self.request(f"{RAY_ENDED}:\n  {self.command}")
            if over.wait(GRACE_SECONDS):
                return
        self.note(f"{RAY_ENDED}:")
        self.note(f"  {self.command}")
        sys.stdout.flush()
        os._exit(status)

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """No trial is stopped for its results."""
        return False

    def stop_all(self) -> bool:
        """Asked by Tune in every round."""
        self.look()
        return self.requested and (not self.running() or time.monotonic() > self._deadline)


class Starvation:
    """Notices that trials wait for processes that never start: Ray would wait for ever without a word."""

    def __init__(
        self,
        stopper: Interruption,
        trials: Path,
        limit_seconds: float,
        needs: str,
        has_begun: Callable[[Path, str], bool] = attempts.has_begun,
    ) -> None:
        """
        Args:
            stopper: is asked to stop once the limit is reached.
            trials: directories of the trials.
            limit_seconds: how long a trial may wait while no other one runs.
            needs: what one takes, in words.
            has_begun: whether a trial, of a directory and a session, has a process.
        """
        self.stopper, self.trials, self.limit_seconds, self.needs = stopper, trials, limit_seconds, needs
        self.has_begun = has_begun
        self._since: float | None = None
        self._told = False

    def look(self) -> None:
        """Called in every round of the search."""
        waiting = self.stopper.running()
        session = self.stopper.stop_file.name
        if not waiting or any(self.has_begun(self.trials / name, session) for name in waiting):
            self._since = None
            return
        self._since = self._since or time.monotonic()
        waited = time.monotonic() - self._since
        if waited > NOTICE_SECONDS and not self._told:
            self._told = True
            self.stopper.note(f"waiting for Ray to start a trial: each needs {self.needs}")
        if waited > self.limit_seconds:
            self.stopper.request(
                f"no trial could start within {self.limit_seconds:g} s: each needs {self.needs}, and Ray "
                "never had that free; ask for less, or look at what else uses the machine or the cluster"
            )


@contextlib.contextmanager
def signals(stopper: Interruption) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the search in order, the second at once."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stopper.listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
