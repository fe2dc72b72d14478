"""The whole search, as a user runs it: real Ray, a tiny model really trained, in process and by Ray Train."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

pytestmark = pytest.mark.ray

COMMAND = [
    *(sys.executable, "-m", "cofi_tune.search", "--task", "grammar", "--model", "tiny", "--trials", "2"),
    *("--max-train-samples", "480", "--epochs", "4", "--teacher-epochs", "1"),
    *("--cpus-per-worker", "1", "--name", "s"),
]
SPACE = """
def space(draw):
    return {
        "cofi/target_sparsity": draw.suggest_float("cofi/target_sparsity", 0.3, 0.6),
        "cofi/mask_travel": 40.0,
        "cofi/warmup_fraction": 0.3,
    }
POINTS = [{"cofi/target_sparsity": 0.5}]
"""
NOISE = re.compile(r"INFO|WARNING|Traceback|\bit/s\]|\x1b\[|Deprecat")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output directory that both searches share: data and teacher are made once."""
    output = tmp_path_factory.mktemp("runs")
    (output / "easy.py").write_text(SPACE)
    return output


def command(output: Path, *more: str) -> list[str]:
    return [*COMMAND, "--output", str(output), "--space", str(output / "easy.py"), *more]


def run(output: Path, *more: str) -> str:
    done = subprocess.run(command(output, *more), capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not NOISE.search(done.stdout), done.stdout
    assert not NOISE.search(done.stderr), done.stderr
    return done.stdout


def interrupt_after_first_trial(output: Path) -> tuple[int, str]:
    process = subprocess.Popen(command(output), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "trial 0001 prune" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=120)[0]
    return process.returncode, "".join(lines) + rest


def check(output: Path, name: str, text: str) -> None:
    """One finished trial each in Optuna, MLflow, on disk and in the table, under one id."""
    ids = [f"{name}-{i:04d}" for i in range(2)]
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{output}/optuna.db")
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == ids
    assert all(trial.state is TrialState.COMPLETE for trial in study.trials)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted([*ids, f"{name} (study)"])
    for run in runs:
        assert run.info.status == "FINISHED"
        if run.info.run_name in ids:
            assert {"cofi/lagrangian", "expected_sparsity", "throughput/speedup"} <= set(run.data.metrics)
    document: dict[str, Any] = json.loads((output / name / "front.json").read_text())
    for row in document["fronts"][0]["trials"]:
        directory = Path(row["path"])
        assert (directory / "model.safetensors").is_file()
        assert (directory.parent / "measurement.json").is_file()
        assert row["trial"].removeprefix(f"{name}-") in text
    assert "teacher" in text
    assert "compare-runs" in text
    assert not (output / name / ".ray").exists()


def ray_processes_of(output: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"COFI_TUNE_TEST={output}".encode() in entry.read_bytes():
                found.append((entry.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch, prepared: Path) -> Path:
    """Processes started from here on can be told from all others."""
    monkeypatch.setenv("COFI_TUNE_TEST", str(prepared))
    return prepared


def no_process_is_left(output: Path) -> None:
    end = time.monotonic() + 90
    while (left := ray_processes_of(output)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == []


def test_interrupted_then_finished_in_process(marked: Path) -> None:
    code, text = interrupt_after_first_trial(marked)
    assert code == 130, text
    assert "Traceback" not in text
    assert "the same command goes on" in text
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{marked}/optuna.db")
    assert study.trials[0].state is TrialState.COMPLETE
    assert study.trials[1].state is not TrialState.COMPLETE
    text = run(marked)
    assert "1 trials are finished, 1 were interrupted" in text
    check(marked, "s", text)
    assert "trial 0000 starts" not in text
    no_process_is_left(marked)


def test_with_one_ray_train_worker(marked: Path) -> None:
    text = run(marked, "--workers-per-trial", "1", "--name", "t")
    check(marked, "t", text)
    # The study before this one has made them.
    assert len(re.findall("outputs of the teacher, once for all trials: .*, found, in ", text)) == 1
    no_process_is_left(marked)


def test_same_losses_in_process_and_with_ray_train(prepared: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{prepared}/mlflow.db")
    curves = []
    for name in ("s", "t"):
        [run] = client.search_runs(
            [client.get_experiment_by_name(name).experiment_id], f"tags.`cofi.trial_id` = '{name}-0000'"
        )
        points = client.get_metric_history(run.info.run_id, "cofi/prediction")
        curves.append({point.step: point.value for point in points})
    assert len(curves[0]) > 10
    assert curves[0] == curves[1]
    assert os.environ.get("RAY_ADDRESS") is None
