"""What trials reported: every line is kept, whatever a kill leaves of the last one."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cofi_tune import history
from cofi_tune.history import Entry, History
from cofi_tune.records import Progress


def progress(step: int) -> Progress:
    return Progress(
        step, 20, "prune", {"loss": 1 / step}, 1e-3, 0.5 * step, 0.1, 0.2, 0.8 if step > 1 else None
    )


def test_a_trial_without_reports_has_no_history(tmp_path: Path) -> None:
    assert history.read(tmp_path / "none") == []


def test_reports_come_back_as_they_were(tmp_path: Path) -> None:
    one = History(tmp_path / "trial")
    assert [one.append(progress(step), 1000 + step) for step in (1, 2, 7)] == [True] * 3
    assert history.read(tmp_path / "trial") == [Entry(1000 + step, progress(step)) for step in (1, 2, 7)]


def test_steps_never_go_back(tmp_path: Path) -> None:
    History(tmp_path).append(progress(4), 1)
    resumed = History(tmp_path)
    assert [resumed.append(progress(step), 10 + step) for step in (2, 4, 6)] == [False, False, True]
    assert [entry.time_ms for entry in history.read(tmp_path)] == [1, 16]


def test_torn_at_every_byte(tmp_path: Path) -> None:
    first = History(tmp_path)
    for step in (1, 2):
        first.append(progress(step), step)
    whole = first.path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        first.path.write_bytes(whole[:length])
        kept = sum(end <= length for end in ends)
        assert len(history.read(tmp_path)) == kept, length
        again = History(tmp_path)
        assert again.append(progress(3), 3)
        assert [entry.progress.step for entry in history.read(tmp_path)] == [*range(1, kept + 1), 3]


def test_lines_that_are_none_are_left_out(tmp_path: Path) -> None:
    one = History(tmp_path)
    one.append(progress(1), 1)
    with one.path.open("ab") as file:
        file.write(b'\0\0\0\n[]\n3\n{"time_ms": 1}\n{"step": 2}\n\xff\n\n')
    again = History(tmp_path)
    assert again.append(progress(2), 2)
    assert [entry.progress.step for entry in history.read(tmp_path)] == [1, 2]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = History(tmp_path)
    one.append(progress(1), 1)
    real = Path.open

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, line: bytes) -> int:
            return int(self.file.write(line[:20]))  # type: ignore[attr-defined]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *args, **kwargs: Full(real(*args, **kwargs)))
        with pytest.raises(OSError, match="space") as caught:
            one.append(progress(2), 2)
    assert caught.value.errno == errno.ENOSPC
    assert one.append(progress(2), 3)
    assert [entry.time_ms for entry in history.read(tmp_path)] == [1, 3]
