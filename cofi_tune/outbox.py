"""Brings MLflow up to date behind the search's back: what is on disk is written when MLflow can take it.

The search's own thread only appends to histories and marks trials as behind; another one does the rest, and
tries again where it fails. What is still missing when the search ends, `python -m cofi_tune.sync` writes.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType

from cofi_tune import connection
from cofi_tune.history import History
from cofi_tune.messages import Asked, Outcome
from cofi_tune.passwords import masked
from cofi_tune.records import Progress
from cofi_tune.tracking import Tracking

Write = Callable[[], object]

PAUSE_SECONDS = 2.0
"""Between rounds: what is heard meanwhile is written together."""
OWN_RUN = "the front"
"""What the study's own run is called among what is behind."""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 30.0
FLUSH_SECONDS, HASTY_FLUSH_SECONDS = 30.0, 5.0
"""How long the end of a search waits for MLflow, and that of an interrupted one."""


class Outbox:
    """A watcher that keeps reports on disk, and an ordered set of trials of which MLflow lacks something."""

    def __init__(
        self,
        tracking: Tracking,
        complain: Callable[[str], None],
        sync_command: str,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """
        Args:
            tracking: writes to MLflow; used by the outbox's own thread alone.
            complain: told in one line when MLflow goes away, when it is back, and what is missing at the end.
            sync_command: writes what is missing, later.
            pause_seconds: between rounds.
        """
        self.tracking, self.complain, self.sync_command = tracking, complain, sync_command
        self.pause_seconds = pause_seconds
        self._asked: dict[str, Asked] = {}
        self._histories: dict[str, History] = {}
        self._unrecorded = False
        self._behind: dict[str, Write] = {}
        """The latest word on each trial, by its id."""
        self._failing: set[str] = set()
        self._told = ""
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline = 0.0
        # MLflow may hang; the process must end nevertheless.
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)

    def __enter__(self) -> Outbox:
        """Start writing, the study's own run first."""
        self._thread.start()
        self._put(OWN_RUN, self.tracking.study_run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is missing, as far as there is time."""
        if error is not None:
            self._put(OWN_RUN, partial(self.tracking.study_run, left=True))
        self.close(FLUSH_SECONDS if error is None else HASTY_FLUSH_SECONDS)

    def started(self, asked: Asked) -> None:
        """A run, with its params."""
        self._asked[asked.trial_id] = asked
        self._put(asked.trial_id, partial(self.tracking.trial, asked))

    def heard(self, trial_id: str, progress: Progress, late: bool = False) -> None:
        """A report goes to the trial's history first, unless it is there."""
        with self._recording():
            if trial_id not in self._histories:
                directory = self.tracking.output / self.tracking.study / "trials" / trial_id
                self._histories[trial_id] = History(directory)
            if self._histories[trial_id].append(progress, _now_ms()):
                self._put(trial_id, partial(self.tracking.trial, self._asked[trial_id]))

    def warned(self, trial_id: str, text: str, again: bool = False) -> None:
        """Warnings are for the terminal."""

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """State, reason, measurement and artifacts."""
        self._histories.pop(trial_id, None)
        asked = self._asked.pop(trial_id, None)
        if asked is not None:  # one that never started has no run
            self._put(trial_id, partial(self.tracking.trial, asked, outcome, _now_ms()))

    def replay(self, over: Iterable[tuple[Asked, Outcome, int | None]]) -> None:
        """Write finished trials unless their runs are whole: what was asked, how it ended, and when in ms."""
        for asked, outcome, ended_ms in over:
            self._put(asked.trial_id, partial(self.tracking.trial, asked, outcome, ended_ms))

    def summarise(self, files: Sequence[Path], metrics: Mapping[str, float]) -> None:
        """The study's own run at its end: front and report, and a few numbers."""
        with self._changed:
            self._behind.pop(OWN_RUN, None)  # it comes after the trials
            self._behind[OWN_RUN] = partial(self.tracking.study_run, files, metrics)
            self._changed.notify()

    def close(self, limit_seconds: float = FLUSH_SECONDS) -> bool:
        """End the writing; says what MLflow lacks.

        Args:
            limit_seconds: how long to wait for MLflow. Not at all where it has been away: it is tried once.

        Returns:
            Whether it lacks nothing.
        """
        with self._changed:
            if self._thread.ident is None or self._closing.is_set():
                return not self._behind
            self._deadline = time.monotonic() + (0 if self._failing else limit_seconds)
            self._closing.set()
            self._changed.notify()
        self._thread.join(limit_seconds)
        with self._changed:
            behind = sorted(self._behind)
        if behind:
            some = ", ".join(behind[:3]) + (f" and {len(behind) - 3} more" if len(behind) > 3 else "")
            self.complain(f"MLflow lacks {some}; to write it when MLflow is there: {self.sync_command}")
        return not behind

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """A full disk is for others to end the search for; a curve alone does not."""
        try:
            yield
        except OSError as error:
            if not self._unrecorded:
                self._unrecorded = True
                self.complain(f"a trial's history cannot be written ({error}); its curves will have gaps")

    def _put(self, name: str, write: Write) -> None:
        with self._changed:
            self._behind[name] = write
            self._changed.notify()

    def _work(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while names := self._waited_for():
            away = False
            for name in names:
                error = self._attempt(name)
                # What MLflow has against one trial it need not have against the next.
                if away := error is not None and not connection.outdated(error):
                    break
            if not self._failing:
                retry_seconds = FIRST_RETRY_SECONDS
                self._closing.wait(self.pause_seconds)
            elif not self._closing.is_set():
                self._closing.wait(retry_seconds)
                retry_seconds = min(2 * retry_seconds, LONGEST_RETRY_SECONDS)
            elif away and time.monotonic() < self._deadline:
                time.sleep(FIRST_RETRY_SECONDS)
            else:
                return

    def _waited_for(self) -> list[str]:
        """Names of what is behind, as soon as there is anything; none when all is written at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._behind or self._closing.is_set())
            return [*self._behind]

    def _attempt(self, name: str) -> Exception | None:
        """Write one; it stays in the set until that is done, and newer words on it stay longer."""
        with self._changed:
            write = self._behind[name]
        failed: Exception | None = None
        try:
            write()
        except Exception as error:  # MLflow's clients, drivers and servers have one each
            failed = error
        with self._changed:
            if self._behind[name] is write:
                del self._behind[name]
            if failed is not None:
                self._behind.setdefault(name, write)
        self._tell(name, failed)
        return failed

    def _tell(self, name: str, failed: Exception | None) -> None:
        was_away = bool(self._failing)
        if failed is None:
            self._failing.discard(name)
            if was_away and not self._failing:
                self.complain("MLflow is back; what it missed is written")
            return
        self._failing.add(name)
        what = connection.explain(failed, self.tracking.uri)
        if not was_away or (isinstance(failed, connection.Unusable) and what != self._told):
            self.complain(f"MLflow cannot be written ({what}); the search goes on, and it is tried again")
        self._told = what


def sync_command(output: Path, name: str, storage: str, uri: str) -> str:
    """What brings MLflow up to date later.

    Args:
        output: of the search.
        name: of the study.
        storage: URL of the study's database; named in the command unless it is the default one.
        uri: of MLflow; named if it has a password, which is kept nowhere.
    """
    return f"python -m cofi_tune.sync {_flags(output, name, storage, uri)}"


def ui_command(output: Path, name: str, storage: str, uri: str) -> str:
    """What shows the study in a browser; arguments as of `sync_command`."""
    return f"python -m cofi_tune.ui {_flags(output, name, storage, uri)}"


def default_tracking(output: Path) -> str:
    """Where runs lie unless `--tracking-uri` says otherwise."""
    return f"sqlite:///{output.absolute() / 'mlflow.db'}"


def default_storage(output: Path) -> str:
    """Where studies lie unless `--storage` says otherwise."""
    return f"sqlite:///{output.absolute() / 'optuna.db'}"


def _flags(output: Path, name: str, storage: str, uri: str) -> str:
    words = ["--output", str(output), "--name", name]
    if storage != default_storage(output):
        words += ["--storage", masked(storage)]
    if masked(uri) != uri:
        words += ["--tracking-uri", masked(uri)]
    return shlex.join(words)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
