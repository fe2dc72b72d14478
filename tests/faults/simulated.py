"""A search whose trials take no time, and what it must leave in MLflow.

Study, proposals and outbox are real, only Ray and torch are missing.
As a command: `python simulated.py OUTPUT NAME TRIALS TRACKING_URI SECONDS_PER_STEP [STORAGE]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow

from analysis.report import files, write
from cofi_tune import optuna_study, summary
from cofi_tune.budget import Budget
from cofi_tune.messages import KEY, Message, Outcome, encode
from cofi_tune.on_disk import OnDisk
from cofi_tune.outbox import Outbox, default_storage, sync_command
from cofi_tune.proposals import Proposals
from cofi_tune.records import Latency, Measurement, Progress
from cofi_tune.tracking import Tracking

STEPS = 12
TAGS = {"cofi.task": "simulated", "cofi.metric": "matthews", "cofi.scenario": "throughput"}
STATUS = ("FINISHED", "FINISHED", "FINISHED", "FAILED")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
"""Of a command that finds the package."""


def measure(sparsity: float) -> Outcome:
    """More sparsity is faster and worse."""
    speedup = 1 / (1.05 - sparsity)
    return Outcome(
        "complete",
        measurement=Measurement(
            score=0.9 - sparsity**4,
            speedup=speedup,
            scores={"matthews": 0.9 - sparsity**4},
            teacher_scores={"matthews": 0.9},
            latencies=(Latency("throughput", 1.0, 1 / speedup, speedup, speedup, speedup, 9, 32, 64),),
            sparsity=sparsity,
            model_sparsity=sparsity / 2,
            num_parameters=100,
            dense_num_parameters=1000,
            macs=1,
            dense_macs=2,
            mean_tokens=8,
            expected_sparsity=sparsity,
            target_sparsity=sparsity,
            seconds=1.0,
        ),
    )


def prepare(trial_id: str, proposal: Mapping[str, Any], link: Any) -> tuple[Any, Mapping[str, Any], str]:
    """The job is the sparsity; the settings are some."""
    return proposal["sparsity"], {"method": "cofi", "batch_size": 32, **proposal}, ""


def search(
    output: Path,
    name: str,
    trials: int,
    uri: str,
    say: Callable[[str], None] = print,
    before: Callable[[int, int], None] = lambda trial, step: None,
    storage: str | None = None,
) -> None:
    """Until so many trials are finished; every fourth one fails.

    Args:
        output: directory.
        name: of the study.
        trials: how many.
        uri: of MLflow.
        say: told what the user would be told.
        before: called before each report with the trial's number and the step.
        storage: of the study; None: SQLite in the output.
    """
    (output / name).mkdir(parents=True, exist_ok=True)
    storage = storage or default_storage(output)
    study = optuna_study.open_study(storage, name, {"task": "simulated"})
    unfinished, done = optuna_study.settle(study), optuna_study.finished(study)
    study.set_user_attr("tracking", {"uri": uri, "password": False, "tags": TAGS})
    tracking = Tracking(uri, name, study.user_attrs["uid"], TAGS, output)
    with Outbox(tracking, say, sync_command(output, name, storage, uri), pause_seconds=0.2) as box:
        box.replay((one.asked, one.outcome, one.ended_ms) for one in done)
        proposals = Proposals(
            study,
            lambda trial: {"sparsity": trial.suggest_float("sparsity", 0.3, 0.9)},
            prepare,
            lambda number: optuna_study.sampler("random", 0, number, trials),
            Budget(trials - len(done)),
            [box],
            unfinished,
        )
        for number in range(len(done), trials):
            config = proposals.suggest(str(number))
            assert isinstance(config, dict)
            for step in range(1, STEPS + 1):
                before(number, step)
                report = Progress(step, STEPS, "prune", {"loss": 1 / step, "cofi/layer": 0.1}, 1e-3, 1.0)
                proposals.on_trial_result(str(number), {KEY: encode(Message(report))})
            outcome = Outcome.failed("non_finite", "nan") if number % 4 == 3 else measure(config["job"])
            text = encode(Message(outcome))
            proposals.on_trial_complete(str(number), {KEY: text})
        source = OnDisk(study, tracking.common, output / name)
        document, made = files(source, str(output), with_pages=False)
        box.summarise(write(made, output / name), summary.metrics(summary.of(document)))


def client_of(uri: str) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=uri)


def runs_of(uri: str, name: str) -> dict[str, mlflow.entities.Run]:
    """The runs by trial id, as far as the server has been told; each trial has one."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name(name)
    found = [] if experiment is None else list(client.search_runs([experiment.experiment_id]))
    runs = {run.data.tags["cofi.trial_id"]: run for run in found}
    assert len(runs) == len(found)
    return runs


def check(uri: str, name: str, trials: int) -> dict[str, mlflow.entities.Run]:
    """Every trial once, over, with its params, its whole curve and its measurement."""
    runs = runs_of(uri, name)
    assert sorted(runs) == [f"{name} (study)", *(f"{name}-{number:04d}" for number in range(trials))]
    assert {run.info.status for run in runs.values()} <= {"FINISHED", "FAILED"}
    for number in range(trials):
        run = runs[f"{name}-{number:04d}"]
        assert run.info.status == STATUS[number % 4]
        assert run.data.tags["cofi.whole"]
        assert {"sparsity", "batch_size"} <= set(run.data.params)
        assert ("score" in run.data.metrics) == (run.info.status == "FINISHED")
        for metric in ("loss", "cofi/layer", "learning_rate"):
            points = client_of(uri).get_metric_history(run.info.run_id, metric)
            assert sorted(point.step for point in points) == [*range(1, STEPS + 1)]
    return runs


def run_together(output: Path, names: Sequence[str], uri: str, *storage: str) -> None:
    """Searches that start at once into the same databases, each in a process; all must end well."""
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(output), name, "4", uri, "0", *storage],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            text=True,
        )
        for name in names
    ]
    outputs = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(names), outputs
    assert outputs == [""] * len(names)
    for name in names:
        check(uri, name, 4)


def until(condition: Callable[[], bool], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    search(
        Path(sys.argv[1]),
        sys.argv[2],
        int(sys.argv[3]),
        sys.argv[4],
        before=lambda trial, step: time.sleep(float(sys.argv[5])),
        storage=sys.argv[6] if len(sys.argv) > 6 else None,
    )
