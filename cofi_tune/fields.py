"""What an MLflow run says of a trial: params, metrics and tags, named as everywhere else.

Params are the trial's settings as the command line and the search space call them, metrics are the loop's
loss terms and the measurement's fields, a scenario's before a slash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cofi_tune
from analysis.contracts import as_text
from cofi_tune.history import Entry
from cofi_tune.messages import INTERRUPTED, Asked, Link, Outcome
from cofi_tune.records import TIMED, Latency, Measurement, Progress
from cofi_tune.timings import Timing

CONTRACT, TIMING = "contract.", "timing."
"""Tags: before the names of a measurement's contract; before the id of a contract of later timings."""
LONGEST_PARAM, LONGEST_TAG = 500, 5000
"""Characters; MLflow takes no more of a param before 2.8, and of a tag."""
Point = tuple[str, float, int, int]
"""Of a curve: name, value, time in ms, step."""
SEARCHED = "cofi.searched"
"""Tag: the names of a trial's params that were drawn, as a JSON list; all others were given."""
SECONDS = "train_seconds"
"""The last metric of every report: where it is written, so are the others."""


def versions() -> dict[str, str]:
    """Tags that say which software made a run."""
    found = {"cofi.version": cofi_tune.__version__}
    for package in ("torch", "ray", "optuna", "mlflow", "transformers"):
        found[f"version.{package}"] = version(package)
    return found


@dataclass(frozen=True)
class Fields:
    """All that a run says."""

    params: dict[str, str]
    points: list[Point]
    """Curves and, at step 0, the measurement."""
    tags: dict[str, str]


def of_trial(
    asked: Asked,
    outcome: Outcome | None,
    entries: Sequence[Entry],
    written: Container[int] = (),
    start_ms: int = 0,
    timed: Sequence[Timing] = (),
) -> Fields:
    """What is known of a trial.

    Args:
        asked: what was proposed.
        outcome: how it ended; None while it runs.
        entries: its history.
        written: steps whose reports to leave out.
        start_ms: when it started, for a measurement without a history.
        timed: what was timed after the search.
    """
    tags = {
        "cofi.kind": "trial",
        "cofi.method": str(asked.settings.get("method", "")),
        SEARCHED: json.dumps(sorted(asked.params)),
        "cofi.state": "running",
        "cofi.reason": "",
    }
    if asked.reproduce:
        tags["cofi.reproduce"] = asked.reproduce
    if asked.link is not None:
        tags |= of_link(asked.link)
    if outcome is not None and entries:
        tags["cofi.heard_ms"] = str(entries[-1].time_ms)
    points = [point for entry in entries if entry.progress.step not in written for point in of_report(entry)]
    if outcome is not None:
        tags |= of_outcome(outcome)
    if outcome is not None and outcome.measurement is not None:
        # The last report's time: the same whenever this is written.
        heard_ms = entries[-1].time_ms if entries else start_ms
        final = of_measurement(outcome.measurement)
        points += [(name, value, heard_ms, 0) for name, value in final.items() if math.isfinite(value)]
        points += [point for timing in timed for point in of_timing(timing)]
        tags |= {
            f"{TIMING}{timing.contract_id}": json.dumps(as_text(timing.contract), sort_keys=True)
            for timing in timed
        }
    params = {name: str(value)[:LONGEST_PARAM] for name, value in of_asked(asked).items()}
    return Fields(
        params,
        points,
        {name: value[:LONGEST_TAG] for name, value in tags.items()},
    )


def of_asked(asked: Asked) -> dict[str, Any]:
    """Params of a run: what was proposed, every setting, and log10 of what is counted on a log scale.

    MLflow's axes are linear.
    """
    params: dict[str, Any] = {**asked.settings, **asked.params}
    for name in asked.logarithmic:
        params[f"log10_{name}"] = round(math.log10(asked.params[name]), 6)
    return params


def of_report(entry: Entry) -> list[Point]:
    """Points of the curves; a value that is no number is none."""
    values = of_progress(entry.progress)
    return [(n, v, entry.time_ms, entry.progress.step) for n, v in values.items() if math.isfinite(v)]


def of_progress(progress: Progress) -> dict[str, float]:
    """Metrics over steps."""
    values: dict[str, float | None] = {
        **progress.losses,
        "learning_rate": progress.learning_rate,
        "expected_sparsity": progress.expected_sparsity,
        "target_sparsity": progress.target_sparsity,
        "selection_score": progress.selection_score,
        "rss_mib": progress.rss_mib,
        "peak_rss_mib": progress.peak_rss_mib,
        SECONDS: progress.seconds,
    }
    return {name: value for name, value in values.items() if value is not None}


def of_measurement(measurement: Measurement) -> dict[str, float]:
    """Metrics of a finished trial."""
    m = measurement
    names = ("score", "speedup", "sparsity", "model_sparsity", "num_parameters", "macs", "seconds")
    values = {name: float(getattr(m, name)) for name in names}
    values |= {"dense/num_parameters": float(m.dense_num_parameters), "dense/macs": float(m.dense_macs)}
    values |= {f"score/{name}": value for name, value in m.scores.items()}
    values |= {f"teacher/{name}": value for name, value in m.teacher_scores.items()}
    return values | of_latencies(m.latencies)


def of_latencies(latencies: Iterable[Latency], prefix: str = "") -> dict[str, float]:
    """Metrics of timings, a scenario's before a slash."""
    return {
        f"{prefix}{timing.scenario}/{name}": float(getattr(timing, name))
        for timing in latencies
        for name in TIMED
    }


def of_timing(timing: Timing) -> list[Point]:
    """Metrics of later timings, behind their contract's id; the same points whenever they are written."""
    values = of_latencies(timing.latencies, f"{timing.contract_id}/")
    return [(name, value, timing.time_ms, 0) for name, value in values.items()]


def of_outcome(outcome: Outcome) -> dict[str, str]:
    """Tags of a trial that is over, or left for another search to go on with."""
    left = outcome.reason == INTERRUPTED
    tags = {
        "cofi.state": INTERRUPTED if left else outcome.state,
        "cofi.reason": outcome.reason or "",
        "cofi.message": outcome.message,
    }
    if outcome.measurement is not None:
        if outcome.measurement.timed_as is not None:
            tags["cofi.timed_as"] = outcome.measurement.timed_as
        tags["cofi.device"] = str(outcome.measurement.contract.get("device_name", ""))
        tags["cofi.guided_by"] = outcome.measurement.guided_by
        tags |= of_contract(outcome.measurement.contract)
    return tags


def of_link(link: Link) -> dict[str, str]:
    """Tags that say which chain a trial is of, and which trial it goes on from."""
    return {
        "cofi.parent": link.parent or "",
        "cofi.root": link.root,
        "cofi.chain": " > ".join(f"{target:g}" for target in link.targets),
    }


def of_contract(contract: Mapping[str, Any]) -> dict[str, str]:
    """Tags that say what a measurement is comparable under."""
    return {f"{CONTRACT}{name}": str(value) for name, value in contract.items()}
