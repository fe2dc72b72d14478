"""What a trial reported, and when the driver heard it: `<trial>/history.jsonl`, only appended to.

MLflow's curves are written from here, so that they can be written again: MLflow takes a point that it has for
what it is, but only if its timestamp is the same.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cofi_tune.records import Progress

FILE = "history.jsonl"


@dataclass(frozen=True)
class Entry:
    """A report and when it was heard."""

    time_ms: int
    """Since 1970."""
    progress: Progress


class History:
    """The end of one trial's file; steps never go back, so a trial that is resumed goes on where it was."""

    def __init__(self, directory: Path, name: str = FILE) -> None:
        """Open the file, made if need be; what a kill left of a last line is cut off.

        Args:
            directory: of the trial.
            name: of the file.

        Raises:
            OSError: it cannot be written.
        """
        self.path = directory / name
        directory.mkdir(parents=True, exist_ok=True)
        whole = self.path.read_bytes() if self.path.exists() else b""
        size = whole.rfind(b"\n") + 1
        if size < len(whole):
            os.truncate(self.path, size)
        self.last_step = max((entry.progress.step for entry in _entries(whole)), default=-1)

    def append(self, progress: Progress, time_ms: int) -> bool:
        """Record a report, unless its step or a later one is recorded already.

        Args:
            progress: the report.
            time_ms: when it was heard.

        Returns:
            Whether it was recorded.

        Raises:
            OSError: the disk is full, say; nothing of it is left in the file.
        """
        if progress.step <= self.last_step:
            return False
        line = json.dumps({"time_ms": time_ms, **asdict(progress)}).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                # The next report must not be glued to half of this one.
                file.truncate(size)
                raise
        self.last_step = progress.step
        return True


def read(directory: Path, name: str = FILE) -> list[Entry]:
    """Everything a trial reported, in order of steps; a line that is not whole yet is left out.

    Args:
        directory: of the trial; one without a file has no history.
        name: of the file.
    """
    path = directory / name
    return [*_entries(path.read_bytes())] if path.exists() else []


def _entries(text: bytes) -> Iterator[Entry]:
    """One for each line that ends and can be read: a power cut may leave anything in a file."""
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        try:
            raw = json.loads(line)
            yield Entry(raw.pop("time_ms"), Progress(**raw))
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
