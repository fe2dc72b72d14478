"""A study's files, where the output is a URL: what goes there from the driver, and what comes from there.

Teachers and their checkpoints go when they are written; histories, front and report when a trial and when the
search is over.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cofi_tune import attempts, checkpoint, history, timings, watchdog
from cofi_tune.history import History
from cofi_tune.messages import UNFINISHED, Asked, OpenLinks, Outcome
from cofi_tune.mirror import Mirror
from cofi_tune.records import Progress
from cofi_tune.trial_files import LOOK_SECONDS, RECORD, RESULTS, get_checkpoints, put_checkpoint, put_files

SMALL = (*RESULTS, history.FILE)


class StudyFiles:
    """A watcher that keeps a study's files at the URL in step with the driver's."""

    def __init__(self, mirror: Mirror, trials: Path, blocked: Callable[[str], None]) -> None:
        """
        Args:
            mirror: of the output.
            trials: directories of the trials.
            blocked: told that the URL cannot be used, and the remedy.
        """
        self.mirror, self.trials, self.blocked = mirror, trials, blocked
        self._links = OpenLinks()

    def started(self, asked: Asked) -> None:
        """Nothing to keep yet."""
        self._links.started(asked)

    def heard(self, trial_id: str, progress: Progress, late: bool = False) -> None:
        """Its worker keeps its reports."""

    def warned(self, trial_id: str, text: str, again: bool = False) -> None:
        """Warnings are for the terminal."""

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """Results come here, the history goes there, and checkpoints of what is over go altogether."""
        directory = self.trials / trial_id
        try:
            for name in RESULTS:
                self.mirror.get(directory / name)
            if outcome.reason not in UNFINISHED:
                self.mirror.drop(directory / checkpoint.DIRECTORY)
                for one in self._links.over(trial_id, outcome):
                    self.mirror.drop(self.trials / one / checkpoint.LINK)
                put_files(self.mirror, directory, (history.FILE,))  # last: says that the rest is done
        except OSError as error:
            self.blocked(str(error))


class Seldom:
    """What processes on other machines have left at the URL, asked for once in a while."""

    def __init__(self, mirror: Mirror | None) -> None:
        """
        Args:
            mirror: of the output, if that is a URL; None: nothing is there.
        """
        self.mirror = mirror
        self._asked = 0.0
        self._sign: int | None = None

    def has_begun(self, directory: Path, session: str) -> bool:
        """See `attempts.has_begun`."""
        if not attempts.has_begun(directory, session) and self._due():
            assert self.mirror is not None
            with contextlib.suppress(OSError):
                self.mirror.get(directory / attempts.FILE, again=True)
        return attempts.has_begun(directory, session)

    def sign(self, directory: Path) -> int | None:
        """Changes when a trial's worker moves."""
        if self._due():
            assert self.mirror is not None
            with contextlib.suppress(OSError):
                self._sign = self.mirror.changed_ns(directory / watchdog.FILE)
        return self._sign

    def _due(self) -> bool:
        now = time.monotonic()
        if self.mirror is None or now - self._asked < LOOK_SECONDS:
            return False
        self._asked = now
        return True


@contextlib.contextmanager
def stop_file_shown(mirror: Mirror, stop_file: Path) -> Iterator[Callable[[], None]]:
    """Yields what shows workers on other machines that they are to stop."""

    def show() -> None:
        with contextlib.suppress(OSError):
            mirror.put(stop_file)

    try:
        yield show
    finally:
        with contextlib.suppress(OSError):
            mirror.drop(stop_file)


def get_study(mirror: Mirror, directory: Path, trial_ids: Iterable[str], elsewhere: bool) -> set[str]:
    """Bring here what a driver has to know of the trials that there are; models stay where they are.

    Args:
        mirror: of the output.
        directory: of the study.
        trial_ids: that the study knows.
        elsewhere: whether its last driver had another working copy: this one may be of an earlier time.

    Returns:
        Ids of the trials of which no driver has kept the history: `StudyFiles.ended` did not come to its end.
    """
    unkept = set()
    mirror.drop(directory / ".ray")  # of a driver that was killed, as its stop file
    for name in mirror.names(directory):
        if name.startswith(".stop-"):
            mirror.drop(directory / name)
    if elsewhere:
        shutil.rmtree(directory / "trials", ignore_errors=True)
    for trial_id in trial_ids:
        trial = directory / "trials" / trial_id
        there = mirror.names(trial)
        if history.FILE not in there:
            unkept.add(trial_id)
        for name in there:
            if name in SMALL:
                mirror.get(trial / name, again=name == RECORD)
        for name in mirror.names(trial / timings.DIRECTORY):
            mirror.get(trial / timings.DIRECTORY / name)
        if (trial / RECORD).is_file():
            # What its worker reported and no driver lived to write down.
            heard = History(trial)
            for entry in history.read(trial, RECORD):
                heard.append(entry.progress, entry.time_ms)
    return unkept


@contextlib.contextmanager
def teacher_kept(mirror: Mirror | None, teachers: Path, task: str) -> Iterator[Callable[[Path], None]]:
    """Teachers of a task, and checkpoints of one that is not finished, brought here; what is new goes there.

    Args:
        mirror: of the output; None: nothing happens.
        teachers: directory of all teachers.
        task: its name.

    Yields:
        To be called with every checkpoint.
    """
    if mirror is None:
        yield lambda path: None
        return
    for name in mirror.names(teachers):
        if name.startswith(f"{task}-"):
            mirror.get(teachers / name)
    for directory in mirror.directories(teachers):
        if directory.startswith(f".{task}-"):
            get_checkpoints(mirror, teachers / directory)
    yield lambda path: put_checkpoint(mirror, path)
    there = mirror.names(teachers)
    for path in _made(teachers, task):
        if path.name not in there:
            mirror.put(path)
            mirror.drop(path.with_name(f".{path.name}.{checkpoint.DIRECTORY}"))


def _made(teachers: Path, task: str) -> list[Path]:
    return [path for path in teachers.glob(f"{task}-*") if path.is_dir()]
