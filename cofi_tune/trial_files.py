"""A trial's files, where the output is a URL: what goes there from a worker, what comes from there, and when.

A checkpoint goes when it is written, after the reports that led to it. Results go before the driver hears
that the trial is over, so that what the study calls complete is there.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from cofi_tune import attempts, checkpoint, watchdog
from cofi_tune.config import Setup
from cofi_tune.history import History
from cofi_tune.messages import Outcome
from cofi_tune.mirror import Away, Mirror
from cofi_tune.records import Progress

RECORD = "reported.jsonl"
"""A trial's reports as its worker made them: goes up before each checkpoint, so that no curve has a gap."""
RESULTS = ("plan.json", "measurement.json", "predictions.safetensors", "error.txt", RECORD)
LOOK_SECONDS = 5.0
SIGN_SECONDS = 30.0


class TrialFiles:
    """A trial's files on the machine of a worker; without a URL, nothing but a look whether it sees them."""

    def __init__(self, setup: Setup, first: bool) -> None:
        """
        Args:
            setup: of the trial.
            first: whether this is the first of the trial's workers, which writes.
        """
        self.setup, self.mirror, self.first = setup, setup.mirror, first
        self.stop_asked = threading.Event()
        self._over = threading.Event()
        self._record: History | None = None

    def __enter__(self) -> TrialFiles:
        """Bring here what the trial starts from."""
        if self.mirror is None:
            if not self.setup.data.is_dir():
                raise Away(
                    f"the node {platform.node()} does not see {self.setup.data}; give an --output that all "
                    "nodes share, a directory or a URL such as s3://bucket/runs"
                )
            return self
        for directory in (self.setup.data, self.setup.teacher):
            self.mirror.get(directory)
        get_checkpoints(self.mirror, self.setup.output / checkpoint.DIRECTORY)
        if self.setup.parent is not None:
            get_checkpoints(self.mirror, self.setup.parent / checkpoint.LINK)
        if self.first:
            self.mirror.get(self.setup.output / RECORD, again=True)
            self._record = History(self.setup.output, RECORD)
        if self.setup.stop_file is not None:
            threading.Thread(target=self._look, args=(self.mirror, self.setup.stop_file), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Look for the stop file no longer."""
        self._over.set()

    def reported(self, progress: Progress) -> None:
        """A report was made."""
        if self._record is not None:
            self._record.append(progress, time.time_ns() // 1_000_000)

    def saved(self, path: Path) -> None:
        """A checkpoint was written."""
        if self.mirror is not None:
            if (self.setup.output / RECORD).is_file():
                self.mirror.put(self.setup.output / RECORD)
            put_checkpoint(self.mirror, path)

    def over(self) -> None:
        """The trial has come to its end, of which nobody has heard yet."""
        if self.mirror is None or not self.first:
            return
        if (self.setup.output / "model").is_dir():
            self.mirror.put(self.setup.output / "model")
        put_files(self.mirror, self.setup.output, (*RESULTS, watchdog.FILE))

    def _look(self, mirror: Mirror, stop_file: Path) -> None:
        """See the driver's stop file from another machine, and show the driver's that this one moves."""
        sign = self.setup.output / watchdog.FILE
        shown = 0.0
        while not self._over.wait(LOOK_SECONDS):
            with contextlib.suppress(OSError):
                if mirror.changed_ns(stop_file) is not None:
                    self.stop_asked.set()
                moved = sign.stat().st_mtime
                if self.first and moved - shown >= SIGN_SECONDS:
                    shown = moved
                    mirror.put(sign)


def latest_step(mirror: Mirror | None, directory: Path) -> int:
    """Step of a trial's newest checkpoint, here or there; 0 if there is none.

    Args:
        mirror: of the output, if that is a URL.
        directory: of the trial's checkpoints.
    """
    here = checkpoint.latest_step(directory)
    there = [] if mirror is None else mirror.names(directory)
    return max([here, *(int(name.removeprefix("step-")) for name in there if name.startswith("step-"))])


def attempt_noted(
    mirror: Mirror | None, directory: Path, session: str, nodes_lost: int = 0
) -> Outcome | None:
    """See `attempts.begin`; what attempts on other machines came to counts.

    Args:
        mirror: of the output, if that is a URL.
        directory: of the trial.
        session: of the driver.
        nodes_lost: nodes that the cluster has lost so far.
    """
    if mirror is not None:
        for name in (attempts.FILE, watchdog.FILE):
            mirror.get(directory / name, again=True)
    given_up = attempts.begin(
        directory, session, nodes_lost, latest_step(mirror, directory / checkpoint.DIRECTORY)
    )
    if mirror is not None and given_up is None:
        mirror.put(directory / attempts.FILE)
    return given_up


def get_checkpoints(mirror: Mirror, directory: Path) -> None:
    """Bring here the whole checkpoints that are not here."""
    for name in mirror.names(directory):
        if name.startswith("step-"):
            mirror.get(directory / name)


def put_checkpoint(mirror: Mirror, path: Path) -> None:
    """Copy a new checkpoint to the URL, then remove there what is no longer here."""
    mirror.put(path)
    for name in mirror.names(path.parent):
        if not (path.parent / name).exists():
            mirror.drop(path.parent / name)


def put_files(mirror: Mirror, directory: Path, names: Iterable[str]) -> None:
    """Copy those files of a directory that there are."""
    for name in names:
        if (directory / name).is_file():
            mirror.put(directory / name)
