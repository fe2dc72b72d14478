"""The outbox: the search never waits for MLflow, and MLflow misses nothing that it can be told."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cofi_tune import connection, history, outbox
from cofi_tune.messages import Asked, Outcome
from cofi_tune.outbox import Outbox
from cofi_tune.records import Progress

COMMAND = "python -m cofi_tune.sync --output runs --name s"
DONE = Outcome("complete")


class Notebook:
    """In place of MLflow: writes down what it is told, and does what `hook` does first."""

    def __init__(self, output: Path) -> None:
        self.uri, self.output, self.study = "http://me:secret@host", output, "s"
        self.written: list[tuple[str, Any]] = []
        self.hook: Callable[[str], None] = lambda name: None

    def trial(self, asked: Asked, outcome: Outcome | None = None, ended_ms: int | None = None) -> bool:
        self.hook(asked.trial_id)
        self.written.append((asked.trial_id, outcome))
        return True

    def study_run(self, files: Any = (), metrics: Any = None, *, left: bool = False) -> bool:
        self.hook("study")
        if metrics is not None:
            self.written.append(("study", files))
        return True


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return Notebook(tmp_path)


@pytest.fixture
def said() -> list[str]:
    return []


def boxed(notebook: Notebook, said: list[str], pause_seconds: float = 0.01) -> Outbox:
    return Outbox(notebook, said.append, COMMAND, pause_seconds)  # type: ignore[arg-type]


def ask(number: int) -> Asked:
    return Asked(f"s-{number}", {}, {})


def progress(step: int) -> Progress:
    return Progress(step, 20, "prune", {"loss": 1.0}, 1e-3, 1.0)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def failing(error: Exception, *names: str) -> Callable[[str], None]:
    def fail(name: str) -> None:
        if not names or name in names:
            raise error

    return fail


def test_everything_is_told_in_order(notebook: Notebook, said: list[str]) -> None:
    with boxed(notebook, said) as box:
        for number in range(3):
            box.started(ask(number))
            box.heard(f"s-{number}", progress(1))
            box.ended(f"s-{number}", DONE)
        box.summarise([Path("front.json")], {})
    over = [name for name, what in notebook.written if what is not None]
    assert over == ["s-0", "s-1", "s-2", "study"]
    assert said == []
    entries = history.read(notebook.output / "s" / "trials" / "s-0")
    assert [entry.progress.step for entry in entries] == [1]
    assert abs(entries[0].time_ms / 1000 - time.time()) < 60


def test_reports_are_written_together(notebook: Notebook, said: list[str]) -> None:
    box = boxed(notebook, said, pause_seconds=60)
    box.started(ask(0))  # before it works: once it has, it rests for a minute
    with box:
        until(lambda: len(notebook.written) == 1)
        for step in range(1, 101):
            box.heard("s-0", progress(step))
        box.ended("s-0", DONE)
    assert notebook.written == [("s-0", None), ("s-0", DONE)]
    assert len(history.read(notebook.output / "s" / "trials" / "s-0")) == 100


def test_a_late_report_is_kept_unless_it_is_there(notebook: Notebook, said: list[str]) -> None:
    with boxed(notebook, said) as box:
        box.started(ask(0))
        box.heard("s-0", progress(1))
        for step in (1, 2):
            box.heard("s-0", progress(step), late=True)
        box.heard("s-0", progress(3))
    assert [one.progress.step for one in history.read(notebook.output / "s" / "trials" / "s-0")] == [1, 2, 3]


def test_what_is_heard_while_it_is_written_is_written_after(notebook: Notebook, said: list[str]) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def hook(name: str) -> None:
        if name == "s-0":
            writing.set()
            go_on.wait(300)

    notebook.hook = hook
    with boxed(notebook, said) as box:
        box.started(ask(0))
        writing.wait(300)
        box.ended("s-0", DONE)
        go_on.set()
    assert notebook.written == [("s-0", None), ("s-0", DONE)]


def test_the_search_does_not_wait(notebook: Notebook, said: list[str]) -> None:
    answers, answered = threading.Event(), []

    def hook(name: str) -> None:
        answers.wait(300)
        answered.append(name)

    notebook.hook = hook
    box = boxed(notebook, said)
    with box:
        for number in range(50):
            box.started(ask(number))
            box.heard(f"s-{number}", progress(1))
            box.ended(f"s-{number}", DONE)
        assert not box.close(limit_seconds=0.2)
    assert answered == [], "MLflow has not said a word"
    answers.set()
    assert said == [f"MLflow lacks s-0, s-1, s-10 and 48 more; to write it when MLflow is there: {COMMAND}"]


def test_away_and_back_is_said_once_each(
    notebook: Notebook, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_RETRY_SECONDS", 0.01)
    calls: list[str] = []

    def away(name: str) -> None:
        calls.append(name)
        raise ConnectionError("no http://me:secret@host here\nat all")

    notebook.hook = away
    with boxed(notebook, said) as box:
        box.started(ask(0))
        box.ended("s-0", DONE)
        box.started(ask(1))
        until(lambda: len(calls) > 4)
        assert said == [
            "MLflow cannot be written (no http://host here); the search goes on, and it is tried again"
        ]
        notebook.hook = lambda name: None
        until(lambda: len(said) == 2)
        box.ended("s-1", DONE)
    assert said[1] == "MLflow is back; what it missed is written"
    assert len(said) == 2
    assert ("s-0", DONE) in notebook.written
    assert ("s-1", DONE) in notebook.written


def test_retries_become_rare(notebook: Notebook, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(outbox, "LONGEST_RETRY_SECONDS", 0.1)
    times: list[float] = []

    def away(name: str) -> None:
        times.append(time.monotonic())
        raise ConnectionError("no")

    notebook.hook = away
    box = boxed(notebook, said)
    with box:
        box.started(ask(0))
        until(lambda: len(times) > 5)
        assert not box.close()
    waits = [later - earlier for earlier, later in itertools.pairwise(times[:6])]
    for wait, least in zip(waits, (0.02, 0.04, 0.08, 0.1, 0.1), strict=True):
        assert wait >= 0.9 * least


def test_an_end_without_mlflow_waits_for_nothing_and_names_the_command(
    notebook: Notebook, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FLUSH_SECONDS", 300.0)
    notebook.hook = failing(ConnectionError("no"))
    with boxed(notebook, said) as box:
        box.started(ask(0))
        until(lambda: len(said) == 1)
        box.ended("s-0", DONE)
        start = time.monotonic()
    assert time.monotonic() - start < outbox.FLUSH_SECONDS
    assert said[1:] == [f"MLflow lacks s-0, the front; to write it when MLflow is there: {COMMAND}"]


def test_one_trial_that_mlflow_refuses_does_not_hold_up_others(notebook: Notebook, said: list[str]) -> None:
    refused = ValueError("a strange param")
    refused.error_code = "INVALID_PARAMETER_VALUE"  # type: ignore[attr-defined]
    notebook.hook = failing(refused, "s-0")
    with boxed(notebook, said) as box:
        for number in range(3):
            box.started(ask(number))
            box.ended(f"s-{number}", DONE)
        box.summarise([], {})
    assert [name for name, what in notebook.written if what is not None] == ["s-1", "s-2", "study"]
    assert "a strange param" in said[0]
    assert said[-1].startswith("MLflow lacks s-0; ")


def test_a_remedy_is_said_whenever_it_is_known(
    notebook: Notebook, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_RETRY_SECONDS", 0.01)
    notebook.hook = failing(ConnectionError("no"))
    with boxed(notebook, said) as box:
        box.started(ask(0))
        until(lambda: len(said) == 1)
        notebook.hook = failing(connection.Unusable("it was deleted; to restore it: this"))
        until(lambda: len(said) == 2)
        time.sleep(0.1)
    assert "to restore it: this" in said[1]
    assert len(said) == 3


def test_a_full_disk_costs_points_and_not_the_search(
    notebook: Notebook, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: history.History, report: Progress, time_ms: int) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history.History, "append", full)
    with boxed(notebook, said) as box:
        box.started(ask(0))
        box.heard("s-0", progress(1))
        box.heard("s-0", progress(2))
        box.ended("s-0", DONE)
    assert len(said) == 1
    assert "No space left" in said[0]
    assert notebook.written[-1] == ("s-0", DONE)


def test_a_trial_that_never_started_has_no_run(notebook: Notebook, said: list[str]) -> None:
    with boxed(notebook, said) as box:
        box.ended("s-0", Outcome.failed("interrupted"))
    assert notebook.written == []


def test_finished_trials_are_replayed(notebook: Notebook, said: list[str]) -> None:
    with boxed(notebook, said) as box:
        box.replay([(ask(number), DONE, 5) for number in range(2)])
    assert notebook.written == [("s-0", DONE), ("s-1", DONE)]


def test_the_command_names_what_it_must(tmp_path: Path) -> None:
    usual = outbox.default_storage(Path("runs"))
    assert outbox.sync_command(Path("runs"), "s", usual, "http://host") == COMMAND
    away = outbox.sync_command(Path("my runs"), "s", "postgresql://me:secret@host/db", "http://me:too@host")
    assert away.endswith(
        "--output 'my runs' --name s --storage postgresql://USER:PASSWORD@host/db"
        " --tracking-uri http://USER:PASSWORD@host"
    )
    by_file = outbox.sync_command(Path("runs"), "s", "postgresql://me@host/db", "http://token@host")
    assert by_file.endswith("--storage postgresql://me@host/db --tracking-uri http://USER:PASSWORD@host")
    assert outbox.ui_command(Path("runs"), "s", usual, "sqlite:///a.db") == COMMAND.replace("sync", "ui")
