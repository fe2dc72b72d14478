"""Study and MLflow in PostgreSQL, without Ray and without training: made, written, read, gone and back."""

from __future__ import annotations

import importlib
import random
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest

from analysis import report, tracked
from cofi_tune import connection, database, storage, sync, ui
from cofi_tune.optuna_study import open_study

pytestmark = pytest.mark.faults

Synced = Callable[[], tuple[int, str]]


@pytest.fixture
def places(running: Any) -> tuple[str, str]:
    """Fresh databases for the study and for MLflow."""
    return running.fresh(), running.fresh()


@pytest.fixture
def synced(tmp_path: Path, places: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> Synced:
    def command() -> tuple[int, str]:
        capsys.readouterr()
        flags = ["--storage", places[0], "--tracking-uri", places[1]]
        status = sync.main(["--output", str(tmp_path), "--name", "s", *flags])
        return status, "".join(capsys.readouterr())

    return command


@pytest.mark.long
def test_three_searches_into_the_same_fresh_databases(
    simulated: ModuleType, places: tuple[str, str], tmp_path: Path
) -> None:
    names = ("one", "two", "three")
    simulated.run_together(tmp_path, names, places[1], places[0])
    assert sorted(study.study_name for study in optuna.get_all_study_summaries(places[0])) == sorted(names)


@pytest.mark.long
def test_driver_killed_again_and_again(
    simulated: ModuleType, places: tuple[str, str], tmp_path: Path, synced: Synced
) -> None:
    chance = random.Random(0)
    script = str(Path(simulated.__file__ or ""))
    for kills in range(6):
        driver = subprocess.Popen(
            [sys.executable, script, str(tmp_path), "s", "5", places[1], "0.04", places[0]],
            env=simulated.ENVIRONMENT,
        )
        # The first while it makes its tables, the others while they write.
        try:
            status = driver.wait(chance.uniform(2, 4) + kills if kills < 4 else 120)
        except subprocess.TimeoutExpired:
            driver.kill()
            status = driver.wait()
        if status == 0:
            break
    assert status == 0
    assert synced() == (0, "s: 0 written, 5 were there already\n")
    simulated.check(places[1], "s", 5)


def test_server_that_goes_and_comes_back(
    simulated: ModuleType,
    running: Any,
    places: tuple[str, str],
    tmp_path: Path,
    said: list[str],
    synced: Synced,
) -> None:
    """The study is elsewhere, so that nothing waits for it: MLflow alone is away."""

    def before(trial: int, step: int) -> None:
        if (trial, step) == (1, 6):
            simulated.until(lambda: "s-0000" in simulated.runs_of(places[1], "s"))
            running.stop()
        if (trial, step) == (3, 6):
            simulated.until(lambda: len(said) == 1)
            running.start()
            simulated.until(lambda: len(said) == 2)

    simulated.search(tmp_path, "s", 6, places[1], said.append, before)
    assert said[0].startswith("MLflow cannot be written (")
    assert said[1] == "MLflow is back; what it missed is written"
    assert running.password not in "".join(said)
    simulated.check(places[1], "s", 6)


def test_report_and_sync_read_it(
    simulated: ModuleType,
    places: tuple[str, str],
    tmp_path: Path,
    synced: Synced,
) -> None:
    simulated.search(tmp_path, "s", 6, places[1], storage=places[0])
    assert synced() == (0, "s: 0 written, 6 were there already\n")
    source = tracked.connect(places[1])
    assert isinstance(source, tracked.Database)
    [known] = source.studies()
    assert (known.name, known.task) == ("s", "simulated")
    source.chosen = [known]
    runs = sorted(source.runs(), key=lambda run: run.name)
    assert [run.name for run in runs] == ["s (study)", *(f"s-{number:04d}" for number in range(6))]
    assert source.curves(runs[1:2])[runs[1].run_id]["loss"] == [(step, 1 / step) for step in range(1, 13)]
    assert source.artifact(runs[0], "front.json") == (tmp_path / "s" / "front.json").read_bytes()
    elsewhere = f"sqlite:///{tmp_path}/mlflow.db"
    assert sync.main(["--output", str(tmp_path), "--storage", places[0], "--tracking-uri", elsewhere]) == 0
    made = []
    for uri in (places[1], elsewhere):
        directory = tmp_path / f"report{len(made)}"
        flags = ["--study", "s", "--tracking-uri", uri, "--output", str(tmp_path), "--to", str(directory)]
        assert report.main(flags) == 0
        made.append({path.name: path.read_bytes() for path in directory.iterdir()})
    for name in ("report.md", "front.csv", "front.json", "trials.parquet"):
        assert made[0][name] == made[1][name]


@pytest.mark.long
def test_ui_shows_it_without_the_password(
    simulated: ModuleType, running: Any, places: tuple[str, str], tmp_path: Path
) -> None:
    simulated.search(tmp_path, "s", 2, places[1], storage=places[0])
    plain = [url.replace(f":{running.password}", "") for url in places]
    flags = ["--output", str(tmp_path), "--storage", plain[0], "--tracking-uri", plain[1]]
    with subprocess.Popen(
        [sys.executable, "-m", "cofi_tune.ui", *flags],
        env={**simulated.ENVIRONMENT, "PGPASSWORD": running.password},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("Ctrl-C"):
                    break
            text = "".join(said)
            assert running.password not in text
            base = next(line.split()[1].partition("/#/")[0] for line in said if line.startswith("MLflow: "))
            assert f"s: {base}/#/compare-runs?runs=" in text
            with urllib.request.urlopen(f"{base}/health", timeout=300) as answer:
                assert answer.status == 200
        finally:
            process.terminate()
        assert process.wait(300) == 0


def test_wrong_password_is_one_line_and_not_said(
    running: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = running.url("postgres", "wr0ng-secret")
    (tmp_path / "s").mkdir()
    commands: list[tuple[int, Callable[[], int]]] = [
        (4, lambda: sync.main(["--output", str(tmp_path), "--storage", wrong])),
        (4, lambda: ui.main(["--output", str(tmp_path), "--storage", wrong])),
        (2, lambda: report.main(["--study", "s", "--tracking-uri", wrong])),
    ]
    for status, command in commands:
        assert command() == status
        text = "".join(capsys.readouterr())
        assert len(text.splitlines()) == 1
        assert "password authentication failed" in text
        assert "wr0ng-secret" not in text
    with pytest.raises(Exception, match="password authentication failed") as caught:
        connection.connect(wrong)
    assert "wr0ng-secret" not in connection.explain(caught.value, wrong)


def test_database_that_cannot_be_used_is_one_line(running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not waited for, as one that has been there is."""
    monkeypatch.setattr(storage, "OUTAGE_SECONDS", 3600.0)
    for url, words in (
        (running.url("postgres", "wr0ng-secret"), "password authentication failed"),
        (running.url("nowhere", None), "does not exist"),
        ("postgresql://cofi:wr0ng-secret@127.0.0.1:9/s", "refused"),
    ):
        with pytest.raises(OSError, match=words) as caught:
            open_study(url, "s", {})
        assert str(caught.value).startswith("the study's database (--storage) cannot be used: ")
        assert "\n" not in str(caught.value)
        assert "wr0ng-secret" not in str(caught.value)


def test_one_driver_on_all_machines_and_names_that_are_free(running: Any, tmp_path: Path) -> None:
    url = running.fresh()
    study = open_study(url, "s", {"task": "x"})
    uid = study.user_attrs["uid"]
    with storage.only_driver_anywhere(url, "s", uid):
        with storage.only_driver_anywhere(url, "t", "another"):
            pass
        with (
            pytest.raises(ValueError, match="a search named s is running already, on another machine"),
            storage.only_driver_anywhere(url, "s", uid),
        ):
            pass
    with storage.only_driver_anywhere(url, "s", uid), database.making(url) as path:
        assert path is None
    assert storage.fresh_name("s", tmp_path, url) == "s-2"


def test_connections_are_few_and_freed(running: Any) -> None:
    url = running.fresh()
    for _ in range(80):  # more than the server has
        with storage.only_driver_anywhere(url, "s", "uid"), database.making(url):
            pass


def test_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    importlib.invalidate_caches()
    with pytest.raises(OSError, match=r"pip install 'cofi-tune\[postgresql\]'"):
        storage.open_storage("postgresql://127.0.0.1/s")
