"""The sync command: what is in the study and not in MLflow is written, once; what it says if it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import mlflow
import optuna
import pytest

from cofi_tune import optuna_study, sync, tracking
from cofi_tune.history import History
from cofi_tune.messages import Outcome
from cofi_tune.outbox import default_storage
from cofi_tune.records import Progress

ROOT = Path(__file__).parents[1]
FAILED = Outcome.failed("out_of_memory", "too big")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def studied(output: Path, name: str, trials: int, **tracked: object) -> optuna.Study:
    """A study whose trials all failed after two reports, and one that still runs."""
    (output / name).mkdir(exist_ok=True)
    study = optuna_study.open_study(default_storage(output), name, {"task": "t"})
    if tracked:
        study.set_user_attr("tracking", {"password": False, "tags": {"cofi.task": "t"}, **tracked})
    for _ in range(trials + 1):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr("settings", {"method": "cofi"})
        trial_id = optuna_study.trial_id_of(name, trial.number)
        reports = History(output / name / "trials" / trial_id)
        for step in (1, 2):
            reports.append(Progress(step, 2, "prune", {"loss": 1.0}, 1e-3, 1.0), 1000 * step)
        if trial.number < trials:
            trial.set_user_attr("outcome", asdict(FAILED))
            optuna_study.tell(study, trial, FAILED)
    return study


def runs_of(uri: str, name: str) -> dict[str, mlflow.entities.Run]:
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    runs = {run.info.run_name: run for run in found}
    assert len(runs) == len(found)
    return runs


@pytest.fixture
def synced(output: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def command(*flags: str) -> tuple[int, str]:
        try:
            status = sync.main(["--output", str(output), *flags])
        except SystemExit as left:
            status = int(left.code or 0)
        return status, "".join(capsys.readouterr())

    return command


def test_finished_trials_are_written_once(output: Path, synced: Callable[..., tuple[int, str]]) -> None:
    study = studied(output, "first", 2, uri=f"sqlite:///{output}/elsewhere.db")
    assert synced("--name", "first") == (0, "first: 2 written, 0 were there already\n")
    runs = runs_of(f"sqlite:///{output}/elsewhere.db", "first")
    assert sorted(runs) == ["first-0000", "first-0001"]
    run = runs["first-0001"]
    assert (run.info.status, run.info.start_time) == ("FAILED", 1000)
    ended = study.trials[1].datetime_complete
    assert ended is not None
    assert run.info.end_time == int(ended.timestamp() * 1000)
    assert run.data.tags["cofi.task"] == "t"
    assert run.data.tags["cofi.reason"] == "out_of_memory"
    assert set(run.data.params) == {"x", "method"}
    assert synced("--name", "first") == (0, "first: 0 written, 2 were there already\n")


def test_without_a_name_every_study_of_the_output(
    output: Path, synced: Callable[..., tuple[int, str]]
) -> None:
    uri = f"sqlite:///{output}/elsewhere.db"
    studied(output, "second", 1, uri=uri)
    studied(output, "third", 1)  # of a search that came no further
    studied(output, "not-here", 1, uri=uri)
    (output / "not-here").rename(output / "moved")
    optuna.create_study(study_name="somebody-elses", storage=default_storage(output))
    status, text = synced()
    assert status == 0
    assert text.splitlines()[-2:] == [
        "second: 1 written, 0 were there already",
        "third: 1 written, 0 were there already",
    ]
    assert "not-here" not in text
    assert "somebody" not in text
    assert "third-0000" in runs_of(f"sqlite:///{output}/mlflow.db", "third")
    status, text = synced("--name", "not-here")
    assert status == 2
    assert "has its files elsewhere" in text


def test_the_front_is_written_too(output: Path, synced: Callable[..., tuple[int, str]]) -> None:
    uri = f"sqlite:///{output}/elsewhere.db"
    studied(output, "front", 1, uri=uri)
    study = {"name": "front", "counts": {"fail": 1}}
    (output / "front" / "front.json").write_text(json.dumps({"fronts": [], "studies": [study]}))
    (output / "front" / "report.html").write_text("<!doctype html>")
    assert synced("--name", "front")[0] == 0
    run = runs_of(uri, "front")["front (study)"]
    client = mlflow.MlflowClient(tracking_uri=uri)
    assert {"study/num_finished": 1, "study/num_complete": 0}.items() <= run.data.metrics.items()
    files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    assert files == ["front.json", "report.html"]


def test_a_torn_front_is_left_alone(output: Path, synced: Callable[..., tuple[int, str]]) -> None:
    studied(output, "torn", 1, uri=f"sqlite:///{output}/elsewhere.db")
    (output / "torn" / "front.json").write_text('{"trials": [')
    assert synced("--name", "torn") == (0, "torn: 1 written, 0 were there already\n")


def test_passwords_are_asked_for(output: Path, synced: Callable[..., tuple[int, str]]) -> None:
    studied(output, "secret", 1, uri="http://host", password=True)
    status, text = synced("--name", "secret")
    assert status == 2
    assert "secret: its MLflow (http://host) wants a password, which is not kept; give the whole" in text
    given = ("--name", "secret", "--tracking-uri", f"sqlite:///{output}/elsewhere.db")
    assert synced(*given) == (0, "secret: 1 written, 0 were there already\n")


def test_usage(output: Path, tmp_path: Path, synced: Callable[..., tuple[int, str]]) -> None:
    studied(output, "usage", 1)
    status, text = synced("--name", "usgae")
    assert status == 2
    assert text.startswith("error: unknown study 'usgae'; did you mean usage? studies: ")
    status, text = synced("--output", str(tmp_path))
    assert status == 2
    assert "no search was made here" in text
    assert list(tmp_path.iterdir()) == []
    status, text = synced("--nmae", "usage")
    assert status == 2
    assert "did you mean --name?" in text


def test_what_cannot_be_reached(output: Path, synced: Callable[..., tuple[int, str]]) -> None:
    studied(output, "down", 1)
    status, text = synced("--name", "down", "--tracking-uri", "http://me:secret@127.0.0.1:9")
    assert (status, text) == (
        4,
        "error: down: MLflow cannot be written (http://127.0.0.1:9 does not answer); run this again later\n",
    )
    status, text = synced("--storage", f"sqlite:////{output}/no/such/place.db")
    assert status == 4
    assert text.startswith("error: the studies' database (--storage) cannot be used: ")
    assert text.count("\n") == 1
    (output / "text.db").write_text("no database " * 100)
    assert synced("--storage", f"sqlite:///{output}/text.db")[0] == 4


def test_one_trial_that_mlflow_refuses_does_not_hold_up_others(
    output: Path, synced: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{output}/elsewhere.db"
    studied(output, "odd", 2, uri=uri)
    with monkeypatch.context() as patch:
        honest = tracking.fields.of_asked
        strange = {"a\nname": 1}
        patch.setattr(
            tracking.fields,
            "of_asked",
            lambda asked: strange if asked.trial_id == "odd-0000" else honest(asked),
        )
        status, text = synced("--name", "odd")
    assert status == 4
    assert text.splitlines()[0] == "odd: 1 written, 0 were there already"
    assert "odd-0000" in text.splitlines()[1]
    assert synced("--name", "odd") == (0, "odd: 1 written, 1 were there already\n")


def test_as_a_command(output: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cofi_tune.sync", "--output", str(tmp_path / "none")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --output")
    assert "Traceback" not in done.stderr
