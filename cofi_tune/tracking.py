"""MLflow: one flat run per trial, written by the driver alone, found again by the trial's id.

Names are the same everywhere: params are the trial's settings as the command line and the search space call
them, metrics are the loop's loss terms and the measurement's fields, a scenario's before a slash.
Runs have no parent, since MLflow's list and charts hide children.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import mlflow
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

import cofi_tune
from cofi_tune.messages import Asked, Outcome
from cofi_tune.records import Measurement, Progress

RUN_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "fail": "FAILED"}
LONGEST_VALUE = 500
PARAMS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
"""Limits of one `log_batch`."""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is down is noticed within seconds; what it missed is written at the end.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class Tracking:
    """A watcher that writes what it hears to MLflow; a failing MLflow never fails a search."""

    def __init__(
        self,
        uri: str,
        study: str,
        uid: str,
        tags: Mapping[str, str],
        artifacts: Path,
        trials: Path,
        complain: Callable[[str], None],
    ) -> None:
        """
        Args:
            uri: where MLflow keeps runs: a database or a server.
            study: the study's name, which is the experiment's.
            uid: the study's own id: another study of this name shares nothing with it.
            tags: what all its runs have in common.
            artifacts: where artifacts go if `uri` is a database.
            trials: `<trial id>/plan.json` and `measurement.json` lie below it.
            complain: told once, in one line, when MLflow cannot be written.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.uri, self.study, self.uid, self.trials = uri, study, uid, trials
        self.common = {"cofi.study": study, "cofi.study_id": uid, **tags, **versions()}
        self.complain = complain
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        self.experiment_id: str | None = None
        self.runs: dict[str, str] = {}
        """Run ids by trial id."""
        self.behind = False
        """Whether something could not be written."""
        self._artifacts = artifacts
        with self._forgiving():
            self._connect()

    def started(self, asked: Asked) -> None:
        """A run, with its params."""
        with self._forgiving():
            self._begin(asked)

    def heard(self, trial_id: str, progress: Progress) -> None:
        """Metrics at the loop's own step."""
        with self._forgiving():
            if trial_id in self.runs:
                self._log_metrics(self.runs[trial_id], of_progress(progress), progress.step)

    def warned(self, trial_id: str, text: str) -> None:
        """Warnings are for the terminal."""

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """State, reason, measurement and artifacts."""
        with self._forgiving():
            if trial_id in self.runs:
                self._end(trial_id, outcome)

    def catch_up(self, asked: Asked, outcome: Outcome) -> None:
        """Write a finished trial unless its run is there and whole; steps that were missed stay missed."""
        with self._forgiving():
            run = self._find(asked.trial_id)
            told = run and (run.data.tags.get("cofi.state"), run.data.tags.get("cofi.reason"))
            if run is None or told != (outcome.state, outcome.reason or ""):
                self._begin(asked)
                self._end(asked.trial_id, outcome)
            else:
                self.runs[asked.trial_id] = run.info.run_id

    def summarise(self, files: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """The study's own run, with its front as files: name -> text."""
        with self._forgiving():
            name = f"{self.study} (study)"
            run_id = self._run(name, {"cofi.kind": "study"})
            del self.runs[name]
            self._log_metrics(run_id, metrics, 0)
            for file, text in files.items():
                self.client.log_text(run_id, text, file)
            self.client.set_terminated(run_id, "FINISHED")

    def comparison(self, base: str = "http://127.0.0.1:5000") -> str | None:
        """Address of MLflow's page that compares this study's runs."""
        if not self.runs or self.experiment_id is None:
            return None
        if self.uri.startswith("http"):
            base = _without_password(self.uri.rstrip("/"))
        runs = quote(json.dumps([*self.runs.values()], separators=(",", ":")))
        return f"{base}/#/compare-runs?runs={runs}&experiments={quote(json.dumps([self.experiment_id]))}"

    def server_command(self) -> str | None:
        """The command that serves this database to a browser on this machine; None where a server runs."""
        if self.uri.startswith("http"):
            return None
        return (
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false python -m mlflow server "
            f"--backend-store-uri {self.uri} --host 127.0.0.1 --port 5000 --workers 1"
        )

    def _connect(self) -> str:
        if self.experiment_id is None:
            found = self.client.get_experiment_by_name(self.study)
            if found is not None:
                if found.lifecycle_stage != "active":
                    raise MlflowException(f"experiment {self.study!r} was deleted; restore it in MLflow")
                self.experiment_id = found.experiment_id
            else:
                location = None if self.uri.startswith("http") else self._artifacts.absolute().as_uri()
                self.experiment_id = self.client.create_experiment(self.study, artifact_location=location)
        return str(self.experiment_id)

    def _find(self, trial_id: str) -> Run | None:
        runs = self.client.search_runs(
            [self._connect()],
            f"tags.`cofi.trial_id` = '{trial_id}' and tags.`cofi.study_id` = '{self.uid}'",
            max_results=1,
        )
        return runs[0] if runs else None

    def _run(self, trial_id: str, tags: Mapping[str, str]) -> str:
        """The run of that id, made if need be."""
        run = self._find(trial_id)
        if run is None:
            every = {**self.common, "cofi.trial_id": trial_id, **tags}
            run = self.client.create_run(self._connect(), tags=every, run_name=trial_id)
        elif run.info.status != "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        self.runs[trial_id] = run.info.run_id
        return str(run.info.run_id)

    def _begin(self, asked: Asked) -> None:
        tags = {"cofi.kind": "trial", "cofi.method": str(asked.settings.get("method", ""))}
        run_id = self._run(asked.trial_id, tags)
        params = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in of_asked(asked).items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_AT_ONCE])

    def _end(self, trial_id: str, outcome: Outcome) -> None:
        run_id = self.runs[trial_id]
        if outcome.measurement is not None:
            self._log_metrics(run_id, of_measurement(outcome.measurement), 0)
        for name in ("plan.json", "measurement.json", "error.txt"):
            path = self.trials / trial_id / name
            if path.is_file():
                self.client.log_artifact(run_id, str(path))
        tags = {
            "cofi.state": outcome.state,
            "cofi.reason": outcome.reason or "",
            "cofi.message": outcome.message,
        }
        if outcome.measurement is not None:
            tags["cofi.device"] = str(outcome.measurement.contract.get("device_name", ""))
        # Empty ones too: a trial that was interrupted before has a reason of then.
        batch = [RunTag(name, value[:LONGEST_VALUE]) for name, value in tags.items()]
        self.client.log_batch(run_id, tags=batch)
        self.client.set_terminated(run_id, RUN_STATUS[outcome.state])

    def _log_metrics(self, run_id: str, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in values.items() if math.isfinite(value)]
        for start in range(0, len(metrics), METRICS_AT_ONCE):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_AT_ONCE])

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        """Whatever MLflow does, the search goes on; it is told of once."""
        try:
            yield
        except Exception as error:  # its clients, drivers and servers have an exception each
            if not self.behind:
                line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                self.complain(
                    f"MLflow cannot be written ({_without_password(line)}); the search goes on without it"
                )
            self.behind = True


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)


def versions() -> dict[str, str]:
    """Tags that say which software made a run."""
    found = {"cofi.version": cofi_tune.__version__}
    for package in ("torch", "ray", "optuna", "mlflow", "transformers"):
        found[f"version.{package}"] = version(package)
    return found


def of_asked(asked: Asked) -> dict[str, Any]:
    """Params of a run: what was proposed, every setting, and log10 of what is counted on a log scale.

    MLflow's axes are linear.
    """
    params: dict[str, Any] = {**asked.settings, **asked.params}
    for name in asked.logarithmic:
        params[f"log10_{name}"] = round(math.log10(asked.params[name]), 6)
    return params


def of_progress(progress: Progress) -> dict[str, float]:
    """Metrics over steps."""
    values: dict[str, float | None] = {
        **progress.losses,
        "learning_rate": progress.learning_rate,
        "expected_sparsity": progress.expected_sparsity,
        "target_sparsity": progress.target_sparsity,
        "selection_score": progress.selection_score,
        "train_seconds": progress.seconds,
    }
    return {name: value for name, value in values.items() if value is not None}


def of_measurement(measurement: Measurement) -> dict[str, float]:
    """Metrics of a finished trial."""
    m = measurement
    names = ("score", "speedup", "sparsity", "model_sparsity", "num_parameters", "macs", "seconds")
    values = {name: float(getattr(m, name)) for name in names}
    values |= {f"score/{name}": value for name, value in m.scores.items()}
    values |= {f"teacher/{name}": value for name, value in m.teacher_scores.items()}
    for timing in m.latencies:
        values |= {
            f"{timing.scenario}/speedup": timing.speedup,
            f"{timing.scenario}/speedup_low": timing.speedup_low,
            f"{timing.scenario}/speedup_high": timing.speedup_high,
            f"{timing.scenario}/latency_ms": timing.latency_ms,
            f"{timing.scenario}/dense_ms": timing.dense_ms,
        }
    return values
