"""What an MLflow run says of a trial: params, metrics and tags, named as everywhere else.

Params are the trial's settings as the command line and the search space call them, metrics are the loop's
loss terms and the measurement's fields, a scenario's before a slash.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from typing import Any

import cofi_tune
from cofi_tune.messages import INTERRUPTED, Asked, Outcome
from cofi_tune.records import Measurement, Progress


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


def of_outcome(outcome: Outcome) -> dict[str, str]:
    """Tags of a trial that is over, or left for another search to go on with."""
    left = outcome.reason == INTERRUPTED
    tags = {
        "cofi.state": INTERRUPTED if left else outcome.state,
        "cofi.reason": outcome.reason or "",
        "cofi.message": outcome.message,
    }
    if outcome.measurement is not None:
        tags["cofi.device"] = str(outcome.measurement.contract.get("device_name", ""))
    return tags
