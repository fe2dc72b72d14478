"""Locks between processes: held by the operating system, so that a dead holder holds none."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

WAIT_SECONDS = 0.1
"""Between two looks at a lock that somebody else holds."""
HOME = "home"
"""User attribute of a study: host and directory of its last driver."""


@contextlib.contextmanager
def exclusive(
    path: Path, waiting: Callable[[], None] = lambda: None, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """One process at a time; the others wait.

    Args:
        path: a file that stands for what is locked; made if need be, and left there.
        waiting: called once if somebody else is at it.
        meanwhile: called again and again until it is over; may raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _taken(file):
            waiting()
            while not _taken(file):
                meanwhile()
                time.sleep(WAIT_SECONDS)
        yield


@contextlib.contextmanager
def only_driver(
    directory: Path,
    name: str,
    note: Callable[[str], None],
    remedy: str = "wait for it, end it, or give this one another --name",
) -> Iterator[None]:
    """One driver at a time: two would offer the same trials.

    Args:
        directory: of the study.
        name: of the study.
        note: told when the lock of a driver that died is taken over.
        remedy: what to do about another driver.

    Raises:
        ValueError: another driver works on the study.
    """
    with (directory / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"a search or timing named {name} is running already ({_described(_holder(file))}); {remedy}"
            ) from None
        left = _holder(file)
        if left:
            note(f"taking over from {_described(left)}, which ended without a word")
        _record(file, {"host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())})
        try:
            yield
        finally:
            _record(file, {})


def refuse_elsewhere(study: Any, directory: Path) -> bool:
    """The lock lies in the output; two outputs may share a database, and so a study.

    Args:
        study: of Optuna; remembers from where it was driven last.
        directory: of the study, in this output.

    Returns:
        Whether its last driver worked elsewhere.

    Raises:
        ValueError: a driver works on it from another output of this machine.
    """
    here = {"host": platform.node(), "directory": str(directory.absolute())}
    last = study.user_attrs.get(HOME, here)
    lock = Path(last["directory"]) / "lock"
    if last != here and last["host"] == here["host"] and lock.is_file():
        with lock.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"a search named {study.study_name} is running already ({_described(_holder(file))}, in "
                    f"{last['directory']}); wait for it, end it, or give this one another --name"
                ) from None
    study.set_user_attr(HOME, here)
    return bool(last != here)


def _taken(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: Any) -> dict[str, Any]:
    """Who wrote the file last, {} if it left in order or the record is torn."""
    file.seek(0)
    try:
        read = json.loads(file.read() or "{}")
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _record(file: Any, holder: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(holder))
    file.flush()


def _described(holder: dict[str, Any]) -> str:
    return f"pid {holder.get('pid')} on {holder.get('host')}, started {holder.get('started')}"


def _started(pid: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(psutil.Process(pid).create_time()))
