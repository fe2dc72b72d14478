"""What is looked at before Ray starts: whether results can be written, and what an earlier search left."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

DRIVER = "COFI_TUNE_DRIVER"
"""Environment variable that all processes of a search have: `<pid>:<start>:<directory of the study>`."""
MIB = 2**20
CHECKPOINT_COPIES = 4
"""Of a model's size in a checkpoint: weights, two moments of Adam, and the best weights so far."""
SPARE_BYTES = 100 * MIB
"""For databases, logs and encoded data."""
END_SECONDS = 10.0


def writable(directory: Path) -> None:
    """Refuse an output that cannot be written.

    Raises:
        OSError: with the remedy.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".writable-") as file:
            file.write(b"1")
    except OSError as error:
        raise OSError(
            f"--output {directory}: cannot be written ({error.strerror}); give another directory"
        ) from error


def room(directory: Path, model_bytes: int, trials: int, at_once: int) -> None:
    """Refuse a search whose models would not fit on the disk.

    Args:
        directory: of the output.
        model_bytes: size of the dense model's weights; every finished trial keeps a smaller one.
        trials: still to run.
        at_once: trials that run at one time.

    Raises:
        OSError: says how much is there and how much is needed.
    """
    needed = SPARE_BYTES + model_bytes * trials + checkpoint_bytes(model_bytes, at_once)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(
            f"--output {directory}: {free // MIB:,} MB free, about {needed // MIB:,} MB needed for {trials} "
            f"models of up to {model_bytes // MIB:,} MB and the checkpoints of {at_once} trials; make room, "
            "give another directory, or lower --trials"
        )


def checkpoint_bytes(model_bytes: int, at_once: int) -> int:
    """Most that the checkpoints of so many trials take: of each two, and one that is being written."""
    return 3 * CHECKPOINT_COPIES * model_bytes * at_once


def known(directory: Path, trials: set[str]) -> None:
    """Refuse to write over trials of which the database knows nothing: it was lost, or is another one.

    Args:
        directory: of the study.
        trials: ids that the study knows.

    Raises:
        ValueError: with the remedy.
    """
    there = {path.name for path in (directory / "trials").glob("*") if path.is_dir()}
    lost = len(there - trials)
    if lost:
        raise ValueError(
            f"{directory / 'trials'} holds {lost} trials that the study's database (--storage) "
            "does not know; bring the database back, or give this one another --name, or --fresh"
        )


@contextlib.contextmanager
def marked(directory: Path) -> Iterator[None]:
    """Processes that are started from here on can be told from all others, should this one die."""
    os.environ[DRIVER] = f"{os.getpid()}:{_started(os.getpid()):.0f}:{directory.absolute()}"
    try:
        yield
    finally:
        del os.environ[DRIVER]


def clear(directory: Path, note: Callable[[str], None]) -> None:
    """Remove what a driver that died left of this study: its processes, scratch files, stop files.

    Args:
        directory: of the study, whose lock is held.
        note: told what was found.
    """
    left = [process for process, study in orphans() if study == str(directory.absolute())]
    if left:
        note(f"ending {len(left)} processes that an earlier run of this search left behind")
        _end(left)
    shutil.rmtree(directory / ".ray", ignore_errors=True)
    for file in directory.glob(".stop-*"):
        file.unlink(missing_ok=True)


def orphans() -> list[tuple[psutil.Process, str]]:
    """Processes of this user's searches whose driver is dead, and the directory of each one's study."""
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(DRIVER)
        except (psutil.Error, OSError):  # gone, or somebody else's
            continue
        if mark is None:
            continue
        pid, started, study = mark.split(":", 2)
        if process.pid != int(pid) and not _alive(int(pid), float(started)):
            found.append((process, study))
    return found


def _alive(pid: int, started: float) -> bool:
    try:
        return abs(_started(pid) - started) < 2
    except psutil.Error:
        return False


def _started(pid: int) -> float:
    return psutil.Process(pid).create_time()


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=END_SECONDS)


def model_bytes(directory: Path) -> int:
    """Size of the weights in a model's directory."""
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))
