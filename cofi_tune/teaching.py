"""The teacher, made where the trials run: the driver may have no GPU, and must not keep one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
import torch

from cofi_tune import teacher
from cofi_tune.config import StudyConfig
from cofi_tune.data.encode import EncodedTask, open_encoded
from cofi_tune.interruption import Interruption
from cofi_tune.machine import this_machine
from cofi_tune.mirror import Away
from cofi_tune.records import Progress, Stopped
from cofi_tune.study_files import teacher_kept
from cofi_tune.upkeep import Upkeep
from cofi_tune.worker import StopFile, outcome_of, quiet_libraries


def made(
    config: StudyConfig,
    data: EncodedTask,
    on_progress: Callable[[Progress], None],
    remote: bool,
    stopper: Interruption,
) -> Path:
    """The directory of a study's teacher: given, found again, or made now.

    Args:
        config: the study's.
        data: the encoded task.
        on_progress: called at every report.
        remote: whether it is made by a task of Ray.
        stopper: ends it, with a checkpoint.

    Raises:
        Stopped: its training failed, or was interrupted.
        ValueError: it cannot be made.
    """
    if remote and config.teacher is None:
        directory = _elsewhere(config, data.directory, stopper.stop_file, on_progress)
        if config.mirror is not None:
            config.mirror.get(directory)
        return directory
    torch.set_num_threads(this_machine().cpus)
    with teacher_kept(config.mirror, config.output / "teachers", data.task.name) as saved:
        return teacher.prepare(
            data,
            config.model,
            config.output,
            epochs=config.teacher_epochs,
            given=config.teacher,
            seed=config.seed,
            precision=config.precision,
            selection=data.selection_split(config.selection),
            on_progress=on_progress,
            upkeep=Upkeep(config.checkpoint_seconds, lambda: stopper.requested, saved=saved),
        )


def _elsewhere(
    config: StudyConfig, data: Path, stop_file: Path, on_progress: Callable[[Progress], None]
) -> Path:
    """Make it in a task of Ray, which `stop_file` ends, with a checkpoint, once it exists."""
    task = ray.remote(num_cpus=config.cpus_per_worker, num_gpus=config.gpus_per_worker)(teach)
    event: Progress | Path | None = None
    try:
        for reference in task.options(num_returns="streaming").remote(config, data.absolute(), stop_file):
            event = ray.get(reference)
            if isinstance(event, Progress):
                on_progress(event)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (Stopped, Away)):
            raise error.cause from error
        raise ValueError(f"the teacher cannot be made: {outcome_of(error.cause).message}") from error
    assert isinstance(event, Path)
    return event


def teach(config: StudyConfig, data: Path, stop_file: Path) -> Iterator[Progress | Path]:
    """Makes a teacher on this worker's device: its progress, then its directory.

    Args:
        config: the study's.
        data: directory of the encoded task.
        stop_file: ends it, with a checkpoint, once it exists.
    """
    quiet_libraries()
    events: queue.SimpleQueue[Progress | Path | BaseException] = queue.SimpleQueue()

    def prepare() -> None:
        output = config.output.absolute()
        try:
            if config.mirror is not None:
                config.mirror.get(data)
            task = open_encoded(data)
            with teacher_kept(config.mirror, output / "teachers", task.task.name) as saved:
                made = teacher.prepare(
                    task,
                    config.model,
                    output,
                    epochs=config.teacher_epochs,
                    seed=config.seed,
                    precision=config.precision,
                    selection=task.selection_split(config.selection),
                    device=config.device,
                    on_progress=events.put,
                    upkeep=Upkeep(config.checkpoint_seconds, StopFile(stop_file), saved=saved),
                )
            events.put(made)
        except BaseException as error:
            events.put(error)

    # A thread turns the callback into events that can be yielded while the training goes on.
    threading.Thread(target=prepare, daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        yield event
        if isinstance(event, Path):
            return
