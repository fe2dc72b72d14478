"""The whole search, as a user runs it: real Ray, a tiny model really trained, in process and by Ray Train.

And nothing that a search starts can be reached from another machine, nor used by who has no token.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import optuna
import psutil
import pytest
from optuna.trial import TrialState

pytestmark = pytest.mark.ray

MARK = "COFI_TUNE_TEST"
SECRET = "s3cret-that-nobody-else-has"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
COMMAND = [
    *(sys.executable, "-m", "cofi_tune.search", "--task", "grammar", "--model", "tiny"),
    *("--max-train-samples", "480", "--epochs", "4", "--teacher-epochs", "1"),
    *("--cpus-per-worker", "1"),
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
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output directory that all these searches share: data and teacher are made once."""
    output = tmp_path_factory.mktemp("runs")
    (output / "easy.py").write_text(SPACE)
    return output


def start(output: Path, name: str, trials: int, *more: str) -> subprocess.Popen[str]:
    """A search whose processes can be told from all others."""
    place = ["--output", str(output), "--space", str(output / "easy.py"), "--name", name]
    place += ["--trials", str(trials)]
    return subprocess.Popen(
        [*COMMAND, *place, *more],
        env={**os.environ, MARK: str(output), "AWS_SECRET_ACCESS_KEY": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(process: subprocess.Popen[str], words: str) -> str:
    """What it prints up to a line with these words."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """The rest of what it prints."""
    try:
        text = process.communicate(timeout=600)[0]
    finally:
        process.kill()
    assert process.returncode == status, text
    assert not NOISE.search(text), text
    return text


def check(output: Path, name: str, trials: int, text: str) -> None:
    """Every trial finished and once in Optuna, MLflow, on disk and in the table, under one id."""
    ids = [f"{name}-{i:04d}" for i in range(trials)]
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
    no_process_is_left(output)


def processes(output: Path) -> list[psutil.Process]:
    """Every process that a search has started, and itself."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(output):
                found.append(process)
    return found


def no_process_is_left(output: Path, seconds: float = 300) -> None:
    """Soon; some of Ray's outlive the search for a while."""
    end = time.monotonic() + seconds
    while (left := processes(output)) and time.monotonic() < end:
        time.sleep(0.5)
    assert left == []


@pytest.fixture(scope="module")
def interrupted_then_finished(output: Path) -> tuple[str, str]:
    """What a search in process said up to Ctrl-C in its second trial, and when it was run again."""
    process = start(output, "s", 2)
    text = until(process, "trial 0001 prune")
    process.send_signal(signal.SIGINT)
    text += finish(process, status=130)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{output}/optuna.db")
    assert study.trials[0].state is TrialState.COMPLETE
    assert study.trials[1].state is not TrialState.COMPLETE
    return text, finish(start(output, "s", 2))


def test_interrupted_then_finished_in_process(
    output: Path, interrupted_then_finished: tuple[str, str]
) -> None:
    first, second = interrupted_then_finished
    assert "the same command goes on" in first
    assert "1 trials are finished, 1 were interrupted" in second
    assert "trial 0000 starts" not in second
    check(output, "s", 2, second)


class Seen(NamedTuple):
    """What can be seen of a search while its first trial runs on two workers of Ray Train."""

    text: str
    """All that it said."""
    listening: list[tuple[str, int, str]]
    """Address, port and command of everything that waits for connections."""
    statuses: dict[str, int]
    """Of the dashboard's answers to who has no token, or a wrong one, by what was asked."""
    logs: list[Path]
    with_secret: list[Path]
    """Those of them in which a credential of the shell stands."""


@pytest.fixture(scope="module")
def seen(output: Path, interrupted_then_finished: tuple[str, str]) -> Seen:
    """The driver is stopped meanwhile: nothing ends before it has been looked at."""
    process = start(output, "t", 1, "--workers-per-trial", "2", "--checkpoint-seconds", "1000")
    text = until(process, "trial 0000 prune")
    process.send_signal(signal.SIGSTOP)
    try:
        found = listening(output)
        statuses = ask_dashboard(found)
        logs = [path for path in session(output).rglob("*") if path.is_file()]
        secret = [path for path in logs if SECRET.encode() in read(path)]
    finally:
        process.send_signal(signal.SIGCONT)
    return Seen(text + finish(process), found, statuses, logs, secret)


def listening(output: Path) -> list[tuple[str, int, str]]:
    found = []
    for process in processes(output):
        with contextlib.suppress(psutil.Error):
            words = " ".join(process.cmdline())[:200]
            sockets = process.net_connections("inet")
            found += [(s.laddr.ip, s.laddr.port, words) for s in sockets if s.status == psutil.CONN_LISTEN]
    return found


def session(output: Path) -> Path:
    """Ray's own directory."""
    words = []
    for process in processes(output):
        with contextlib.suppress(psutil.Error):  # a worker that has just ended
            words += process.cmdline()
    [directory] = {found[1] for word in words if (found := re.match(r"--session-dir=(\S+)$", word))}
    return Path(directory)


def read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def ask_dashboard(found: list[tuple[str, int, str]]) -> dict[str, int]:
    # Ray takes the first free port from 8265 on.
    [port] = {port for _, port, words in found if "dashboard/dashboard.py" in words and 8265 <= port < 8365}
    place = f"http://127.0.0.1:{port}"
    paths = ("/api/jobs/", "/api/version", "/nodes?view=summary", "/api/v0/actors")
    job = b'{"entrypoint": "true"}'
    wrong = {"Authorization": "Bearer " + "0" * 64}
    return {path: ask(place + path) for path in paths} | {
        "a job": ask(f"{place}/api/jobs/", job),
        "a job with a wrong token": ask(f"{place}/api/jobs/", job, wrong),
    }


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    """The status of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with opener.open(asked, timeout=300) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_with_two_ray_train_workers(output: Path, seen: Seen) -> None:
    check(output, "t", 1, seen.text)
    # The study before this one has made them.
    assert len(re.findall("outputs of the teacher, once for all trials: .*, found, in ", seen.text)) == 1


def test_a_search_listens_on_loopback_alone(seen: Seen) -> None:
    assert len({words for _, _, words in seen.listening}) > 5, "Ray's daemons, its dashboard, the workers"
    elsewhere = [one for one in seen.listening if one[0] not in LOOPBACK]
    assert not elsewhere, "\n".join(map(str, elsewhere))


def test_who_has_no_token_is_refused_by_the_dashboard(seen: Seen) -> None:
    assert len(seen.statuses) == 6
    assert set(seen.statuses.values()) <= {401, 403}, seen.statuses


def test_credentials_are_in_no_log_of_ray(seen: Seen) -> None:
    assert len(seen.logs) > 10
    assert seen.with_secret == []


@pytest.mark.long
def test_same_losses_in_process_and_with_ray_train(
    output: Path, interrupted_then_finished: tuple[str, str]
) -> None:
    check(output, "u", 1, finish(start(output, "u", 1, "--workers-per-trial", "1")))
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{output}/mlflow.db")
    curves = []
    for name in ("s", "u"):
        [run] = client.search_runs(
            [client.get_experiment_by_name(name).experiment_id], f"tags.`cofi.trial_id` = '{name}-0000'"
        )
        points = client.get_metric_history(run.info.run_id, "cofi/prediction")
        curves.append({point.step: point.value for point in points})
    assert len(curves[0]) > 10
    assert curves[0] == curves[1]
    assert os.environ.get("RAY_ADDRESS") is None
