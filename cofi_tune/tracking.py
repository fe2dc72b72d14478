"""MLflow: one flat run per trial, brought up to date from what the study and the trial's history say.

Writing a trial twice, from two processes, or after half an attempt, makes the same run: it is found by the
trial's id, points carry the time at which they were heard, and a tag that is written last says that nothing
of a finished trial is missing. Runs have no parent, since MLflow's list and charts hide children.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from cofi_tune import connection, fields, history, timings
from cofi_tune.lock import exclusive
from cofi_tune.messages import UNFINISHED, Asked, Outcome
from cofi_tune.passwords import without_password
from cofi_tune.timings import Timing

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "fail": "FAILED"}
WHOLE = "cofi.whole"
"""Tag: the end of a trial of which nothing is missing, later timings included."""
ARTIFACTS = ("plan.json", "measurement.json", "predictions.safetensors", "error.txt")
TRAINING_PAGES = "workflowType=machine_learning"
"""Of an address: MLflow shows the pages for language models unless asked for those with runs."""
PARAMS_AT_ONCE, METRICS_AT_ONCE = 100, 900
"""`log_batch` takes 100 params, and 1000 things in all."""


@dataclass
class Known:
    """What we know of a run. MLflow may have more by now: that costs a repetition and does no harm."""

    run_id: str
    start_ms: int
    status: str
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    written_ms: dict[int, int] | None = None
    """The times of reports that are written, by step; None: MLflow was not asked yet."""


class Tracking:
    """Writes the trials of one study to MLflow; whatever MLflow raises is for the caller."""

    def __init__(
        self,
        uri: str,
        study: str,
        uid: str,
        tags: Mapping[str, str],
        output: Path,
        artifacts: str | None = None,
    ) -> None:
        """Nothing is opened or imported yet.

        Args:
            uri: where MLflow keeps runs: a database or a server.
            study: the study's name, which is the experiment's.
            uid: the study's own id: another study of this name shares nothing with it.
            tags: what all its runs have in common.
            output: has `<study>/trials/<trial id>/`, and takes the artifacts if `uri` is a database.
            artifacts: URL that takes them instead.
        """
        self.artifacts = artifacts or (output / "mlartifacts").absolute().as_uri()
        self.uri, self.study, self.uid, self.output = uri, study, uid, output
        self.common = {"cofi.study": study, "cofi.study_id": uid, **tags}
        self.client: MlflowClient | None = None
        self.experiment_id = ""
        self.runs: dict[str, Known] = {}
        """By trial id."""

    def trial(self, asked: Asked, outcome: Outcome | None = None, ended_ms: int | None = None) -> bool:
        """Bring the run of one trial up to date.

        Args:
            asked: what was proposed.
            outcome: how it ended; None while it runs.
            ended_ms: when that was; None: now.

        Returns:
            Whether anything was written; False for a finished trial of which nothing is missing.
        """
        return self._alone(lambda client: self._trial(client, asked, outcome, ended_ms))

    def study_run(
        self,
        files: Sequence[Path] = (),
        metrics: Mapping[str, float] | None = None,
        *,
        left: bool = False,
    ) -> bool:
        """Bring the study's own run up to date.

        Args:
            files: the front and the report, to be its artifacts.
            metrics: the study in a few numbers; None while it is searched.
            left: the search was interrupted.

        Returns:
            Whether anything was written.
        """
        status = "KILLED" if left else "RUNNING" if metrics is None else "FINISHED"
        return self._alone(lambda client: self._study_run(client, files, metrics or {}, status))

    @property
    def is_served(self) -> bool:
        """Whether a server runs already, rather than a database to be served."""
        return self.uri.startswith("http")

    def look(self) -> None:
        """Find the runs of this study that there are, and make nothing."""
        with self._lock():
            client = connection.connect(self.uri, self.output / connection.ARTIFACTS)
            if client.get_experiment_by_name(self.study) is not None:
                self._connected()

    def comparison(self, base: str = "http://127.0.0.1:5000") -> str | None:
        """Address of MLflow's page that compares this study's runs."""
        known = [run.run_id for _, run in sorted(self.runs.items()) if run.tags.get("cofi.kind") == "trial"]
        if not known:
            return None
        if self.is_served:
            base = without_password(self.uri.rstrip("/"))
        runs = quote(json.dumps(known, separators=(",", ":")))
        experiments = quote(json.dumps([self.experiment_id]))
        return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{TRAINING_PAGES}"

    def _alone(self, write: Callable[[MlflowClient], bool]) -> bool:
        """Write while no other process writes runs of this study: two would make two runs for a trial."""
        with self._lock():
            while True:
                remembered = self.client is not None
                try:
                    return write(self._connected())
                except Exception as error:
                    self.client = None
                    # A run or the experiment was deleted meanwhile: look again before it counts as failed.
                    if not remembered or not connection.outdated(error):
                        raise

    def _lock(self) -> AbstractContextManager[None]:
        return exclusive(self.output / self.study / "mlflow.lock")

    def _connected(self) -> MlflowClient:
        if self.client is None:
            client = connection.connect(self.uri, self.output / connection.ARTIFACTS)
            artifacts = None if self.is_served else self.artifacts
            self.experiment_id = connection.experiment(client, self.study, artifacts)
            self.runs = self._search(client)
            self.client = client
        return self.client

    def _trial(
        self, client: MlflowClient, asked: Asked, outcome: Outcome | None, ended_ms: int | None
    ) -> bool:
        run = self._found(client, asked.trial_id)
        directory = self.output / self.study / "trials" / asked.trial_id
        timed = timings.read(directory) if outcome is not None else []
        if run is not None and outcome is not None and run.tags.get(WHOLE) == _end_of(outcome, timed):
            return False
        entries = history.read(directory)
        if run is None:
            tags = fields.of_trial(asked, None, []).tags
            run = self._created(client, asked.trial_id, tags, entries[0].time_ms if entries else None)
        elif outcome is None and run.status != "RUNNING":
            client.update_run(run.run_id, status="RUNNING")
            run.status = "RUNNING"
        written_ms = _written_ms(client, run)
        # A search that has lost its disk hears reports again: at another time they would be other points.
        entries = [replace(one, time_ms=written_ms.get(one.progress.step, one.time_ms)) for one in entries]
        known = fields.of_trial(asked, outcome, entries, written_ms, run.start_ms, timed)
        _log(client, run, known.params, known.points, known.tags)
        written_ms |= {one.progress.step: one.time_ms for one in entries}
        if outcome is not None:
            for path in (directory / name for name in ARTIFACTS):
                if path.is_file():
                    client.log_artifact(run.run_id, str(path))
            left = outcome.reason in UNFINISHED
            run.status = "KILLED" if left else RUN_STATUS[outcome.state]
            client.set_terminated(run.run_id, run.status, ended_ms)
            if not left:
                _log(client, run, tags={WHOLE: _end_of(outcome, timed)})
        return True

    def _study_run(
        self, client: MlflowClient, files: Sequence[Path], metrics: Mapping[str, float], status: str
    ) -> bool:
        digest = hashlib.sha256(json.dumps([self.common, metrics, status], sort_keys=True).encode())
        for path in files:
            digest.update(path.read_bytes())
        name = f"{self.study} (study)"
        run = self._found(client, name)
        if run is not None and run.tags.get(WHOLE) == digest.hexdigest():
            return False
        run = run or self._created(client, name, {"cofi.kind": "study"}, None)
        now_ms = time.time_ns() // 1_000_000
        _log(client, run, points=[(key, value, now_ms, 0) for key, value in metrics.items()])
        for path in files:
            client.log_artifact(run.run_id, str(path))
        if status == "RUNNING":
            client.update_run(run.run_id, status=status)
        else:
            client.set_terminated(run.run_id, status)
        _log(client, run, tags=self.common | {"cofi.state": status.lower(), WHOLE: digest.hexdigest()})
        return True

    def _found(self, client: MlflowClient, trial_id: str) -> Known | None:
        """The run of that id; another process may have made it since we looked."""
        if trial_id not in self.runs:
            self.runs |= self._search(client, f" and tags.`cofi.trial_id` = '{trial_id}'")
        return self.runs.get(trial_id)

    def _search(self, client: MlflowClient, more: str = "") -> dict[str, Known]:
        """Runs of this study by trial id, one for each."""
        found: dict[str, Known] = {}
        token: str | None = None
        while token != "":
            page = client.search_runs(
                [self.experiment_id],
                f"tags.`cofi.study_id` = '{self.uid}'{more}",
                order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
                page_token=token,
            )
            for run in page:
                trial_id = run.data.tags["cofi.trial_id"]
                if trial_id in found:
                    # A server was too slow to say that it had made the first one.
                    client.delete_run(run.info.run_id)
                    continue
                info, data = run.info, run.data
                params, tags = {*data.params}, {**data.tags}
                found[trial_id] = Known(info.run_id, info.start_time, info.status, params, tags)
            token = page.token or ""
        return found

    def _created(
        self, client: MlflowClient, trial_id: str, tags: Mapping[str, str], start_ms: int | None
    ) -> Known:
        every = {**self.common, "cofi.trial_id": trial_id, **tags}
        info = client.create_run(self.experiment_id, start_ms, every, trial_id).info
        self.runs[trial_id] = Known(info.run_id, info.start_time, info.status, tags=every, written_ms={})
        return self.runs[trial_id]


def _written_ms(client: MlflowClient, run: Known) -> dict[int, int]:
    """When each report of which MLflow has the points was heard, by step."""
    if run.written_ms is None:
        points = client.get_metric_history(run.run_id, fields.SECONDS)
        run.written_ms = {point.step: point.timestamp for point in points}
    return run.written_ms


def _end_of(outcome: Outcome, timed: Sequence[Timing]) -> str:
    """Says of a finished trial what is written: another word once it was timed again."""
    text = " ".join(f"{timing.contract_id} {timing.time_ms}" for timing in timed)
    digest = f"timed {hashlib.sha256(text.encode()).hexdigest()[:16]}" if timed else ""
    return " ".join(filter(None, (outcome.state, outcome.reason, digest)))


def _log(
    client: MlflowClient,
    run: Known,
    params: Mapping[str, str] = {},
    points: Sequence[fields.Point] = (),
    tags: Mapping[str, str] = {},
) -> None:
    """Write what is new, in as few calls as MLflow allows; tags last, since one says that all is there."""
    from mlflow.entities import Metric, Param, RunTag

    # A param that is there cannot be changed, so it is left alone.
    new = [Param(name, value) for name, value in params.items() if name not in run.params]
    metrics = [Metric(*point) for point in points]
    changed = [RunTag(name, value) for name, value in tags.items() if run.tags.get(name, "") != value]
    calls = max(-(-len(new) // PARAMS_AT_ONCE), -(-len(metrics) // METRICS_AT_ONCE), bool(changed))
    for call in range(calls):
        client.log_batch(
            run.run_id,
            metrics=metrics[call * METRICS_AT_ONCE : (call + 1) * METRICS_AT_ONCE],
            params=new[call * PARAMS_AT_ONCE : (call + 1) * PARAMS_AT_ONCE],
            tags=changed if call == calls - 1 else [],
        )
    run.params |= {*params}
    run.tags |= tags
