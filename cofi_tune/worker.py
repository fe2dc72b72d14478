"""One trial on the device it was given: runs the loop, reports, and never lets its end go untold.

Between the loop and Ray stands a port of one function, `Report`; `in_tune` and `in_train` are its two
adapters: a Tune actor that trains by itself, and one of the workers that Ray Train starts.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cofi_tune.config import Setup, TrialConfig
from cofi_tune.messages import KEY, UNFINISHED, Message, Outcome, encode
from cofi_tune.mirror import Away
from cofi_tune.process_memory import free_memory
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import (
    DISK_FULL,
    INTERRUPTED,
    NO_SPACE,
    OUTPUT_AWAY,
    PARENT_LOST,
    InvalidMetric,
    InvalidPoint,
    Measurement,
    Progress,
    Stopped,
)
from cofi_tune.trial_files import TrialFiles, attempt_noted
from cofi_tune.upkeep import Upkeep
from cofi_tune.watchdog import START_SECONDS, Watchdog

LOOK_SECONDS = 0.5
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "could not create a primitive",
    "could not create a memory",
    "can't start new thread",
    "cannot allocate memory",
    "bad_alloc",
    "failed to map segment",
)
"""How CUDA, PyTorch, oneDNN (twice), Python, the system, C++ and the loader of libraries put it."""
Report = Callable[[Message], None]

FAILURES = ("non_finite", DISK_FULL, INTERRUPTED, OUTPUT_AWAY, PARENT_LOST)
"""Reasons to stop that are no decision to end a trial early: what broke, and what goes on another time."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to know."""

    trial_id: str
    trial: TrialConfig
    setup: Setup
    parts: int = 1
    """In how many parts a worker takes its share of a batch: 2 once it did not fit in memory."""
    given_up: Outcome | None = None
    """How the driver has ended it, though Tune tries it once more."""


def work(job: Job, ranks: Ranks, report: Report) -> None:
    """Run a trial to its end.

    Reports as often on every rank, since a report is a barrier for them; only the first rank's counts.

    Args:
        job: the trial.
        ranks: this worker's place.
        report: takes every message; the last one holds the `Outcome`.

    Raises:
        Exception: memory ran out, and the batch can still be taken in parts; or something broke on this one
            of several workers: the others wait for it, so that the group has to be ended from outside
            (`trial.py` makes it an outcome).
    """
    measurement: Measurement | None = None
    files = TrialFiles(job.setup, first=ranks.rank == 0)
    limit = job.setup.timeout_seconds
    watchdog = Watchdog(job.setup.output, limit, max(limit, START_SECONDS))
    earlier: list[Progress] = []

    def say(content: Progress | Outcome) -> None:
        report(Message(content, _take(collected), _take(earlier)))

    with _collected_warnings() as collected, watchdog as dog:
        if job.parts > 1:
            collected.append(f"memory ran out: from here on every batch comes in {job.parts} parts")
        stop = StopFile(job.setup.stop_file, files.stop_asked)
        upkeep = Upkeep(job.setup.checkpoint_seconds, stop, dog.beat, files.saved, earlier.extend)
        try:
            with files:
                for event in _compress(job, ranks._replace(parts=job.parts), upkeep):
                    if isinstance(event, Progress):
                        files.reported(event)
                        say(event)
                    else:
                        measurement = event
                files.over()
            outcome = Outcome("complete", measurement=measurement)
        except Exception as error:
            if is_out_of_memory(error) and job.parts == 1:
                raise
            # These are raised by every worker at the same step.
            if ranks.size > 1 and not isinstance(error, (Stopped, InvalidPoint)):
                raise
            outcome = outcome_of(error)
            _keep_traceback(job, outcome)
            if outcome.reason not in UNFINISHED:
                with contextlib.suppress(OSError):  # the figures are in the study
                    files.over()
        say(outcome)


class StopFile:
    """Whether the driver asked to stop; looked for once in a while, since the file may lie far away."""

    def __init__(self, path: Path | None, asked: threading.Event | None = None) -> None:
        """
        Args:
            path: on this machine; None: there is none.
            asked: set when it was seen elsewhere.
        """
        self.path = path
        self.asked = asked or threading.Event()
        self._looked = 0.0
        self._found = False

    def __call__(self) -> bool:
        """Ask."""
        now = time.monotonic()
        if self.path is not None and not self._found and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._found = self.path.exists()
        return self._found or self.asked.is_set()


def outcome_of(error: BaseException) -> Outcome:
    """What an exception makes of a trial."""
    line = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, Stopped):
        return Outcome("fail" if error.reason in FAILURES else "pruned", error.reason, line)
    if isinstance(error, InvalidMetric):
        return Outcome.failed("invalid_metric", line)
    if isinstance(error, InvalidPoint):
        return Outcome.failed("invalid_point", line)
    if is_out_of_memory(error):
        return Outcome.failed("out_of_memory", line)
    if isinstance(error, Away):
        return Outcome.failed(OUTPUT_AWAY, line)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return Outcome.failed(DISK_FULL, line)
    return Outcome.failed("error", f"{type(error).__name__}: {line}")


def in_tune(config: dict[str, Any]) -> None:
    """Runs a trial in the process of its Tune actor, which the next trial uses again."""
    from ray import tune

    def report(message: Message) -> None:
        tune.report({KEY: encode(message)})

    job: Job = config["job"]
    given_up = attempt(job)
    if given_up is not None:
        report(Message(given_up))
        return
    try:
        work(job, ALONE, report)
        fits = True
    except Exception:  # `work` lets out one kind alone: memory ran out
        fits = False
    free_memory()
    if not fits:
        work(replace(job, parts=2), ALONE, report)
        free_memory()


def attempt(job: Job) -> Outcome | None:
    """See `attempts.begin`; without a driver's stop file nobody tries again.

    Nodes that are gone are counted as a whole: which of them a lost process was on, nobody is left to say.
    """
    if job.given_up is not None or job.setup.stop_file is None:
        return job.given_up
    import ray

    lost = sum(not node["Alive"] for node in ray.nodes()) if ray.is_initialized() else 0
    try:
        return attempt_noted(job.setup.mirror, job.setup.output, job.setup.stop_file.name, lost)
    except Away as error:
        return outcome_of(error)


def in_train(config: dict[str, Any]) -> None:
    """Runs this worker's part of a trial, joined with the other workers that Ray Train has started."""
    import ray.train
    import ray.train.torch

    from cofi_tune.process_group import joined

    job: Job = config["job"]
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    if job.setup.device != "cpu":
        # Workers of a node see all GPUs of their group; each has its own among them.
        own = {"device": str(ray.train.torch.get_device())}
        job = Job(job.trial_id, job.trial, job.setup.model_copy(update=own))
    with joined(ranks, job.setup.device):
        work(job, ranks, lambda message: ray.train.report({KEY: encode(message)}))


def quiet_libraries() -> None:
    """No progress bars of other libraries: nobody watches a worker's output."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _compress(job: Job, ranks: Ranks, upkeep: Upkeep) -> Iterator[Progress | Measurement]:
    from cofi_tune.compress import compress

    quiet_libraries()
    if job.setup.timing == "bench":
        from cofi_tune.bench import timed_there

        return compress(job.trial, job.setup, ranks, upkeep, timed_there)
    return compress(job.trial, job.setup, ranks, upkeep)


@contextlib.contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Texts of warnings that a person should see, instead of lines in a log file nobody reads."""
    texts: list[str] = []

    def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
            texts.append(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield texts


def _take(things: list[Any]) -> tuple[Any, ...]:
    taken = tuple(things)
    things.clear()
    return taken


def _keep_traceback(job: Job, outcome: Outcome) -> None:
    if outcome.reason == "error":
        with contextlib.suppress(OSError):
            job.setup.output.mkdir(parents=True, exist_ok=True)
            (job.setup.output / "error.txt").write_text(traceback.format_exc())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the host or of the device."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, (RuntimeError, ImportError)) and any(words in text for words in OUT_OF_MEMORY)
