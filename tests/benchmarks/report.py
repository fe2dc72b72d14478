"""What a report of 10,000 trials costs: seconds from MLflow's SQLite file to the document, and bytes.

    python tests/benchmarks/report.py [--trials 10000]

The database is MLflow's own, filled with as many params, metrics and tags as a search writes; the models near
the front have predictions of 1,000 dev rows. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from analysis import document, report, sureness, tracked  # noqa: E402
from cofi_tune import connection  # noqa: E402

ROWS = 1000
SCENARIOS = ("throughput", "latency")
TIMED = ("speedup", "speedup_low", "speedup_high", "latency_ms", "dense_ms", "num_pairs")


def fill(directory: Path, trials: int) -> str:
    """An MLflow database with one study; returns its URI."""
    uri = f"sqlite:///{directory}/mlflow.db"
    client = connection.connect(uri)
    experiment = connection.experiment(client, "big", (directory / "mlartifacts").as_uri())
    stream = np.random.Generator(np.random.PCG64(0))
    sparsity = stream.uniform(0.4, 0.95, trials)
    scores = 0.9 - 0.4 * sparsity**4 - stream.uniform(0, 0.2, trials)
    speedups = stream.uniform(0.9, 1.1, trials) / (1.05 - sparsity)
    rows: dict[str, list[tuple[object, ...]]] = {"runs": [], "params": [], "tags": [], "latest_metrics": []}
    for i in range(trials):
        run = f"{i:032x}"
        place = (directory / "mlartifacts" / run / "artifacts").as_uri()
        rows["runs"].append((run, f"big-{i:05d}", "FINISHED", i + 1, i + 2, place, experiment, "active", ""))
        for name, text in params(sparsity[i], stream).items():
            rows["params"].append((name, text, run))
        rows["tags"] += [(name, text, run) for name, text in tags(i).items()]
        for name, value in metrics(scores[i], speedups[i], sparsity[i]).items():
            rows["latest_metrics"].append((name, value, 0, 0, 0, run))
    names = {
        "runs": "run_uuid, name, status, start_time, end_time, artifact_uri, experiment_id, lifecycle_stage, "
        "source_version",
        "params": "key, value, run_uuid",
        "tags": "key, value, run_uuid",
        "latest_metrics": "key, value, timestamp, step, is_nan, run_uuid",
    }
    with sqlite3.connect(directory / "mlflow.db") as database:
        for table, values in rows.items():
            marks = ", ".join("?" * len(values[0]))
            database.executemany(f"insert into {table} ({names[table]}) values ({marks})", values)
    predict(directory, list(zip(scores.tolist(), speedups.tolist(), strict=True)), stream)
    return uri


def params(sparsity: float, stream: np.random.Generator) -> dict[str, str]:
    """25 settings, 8 of them drawn."""
    drawn = {f"cofi/drawn_{j}": str(value) for j, value in enumerate(stream.random(7))}
    given = {f"cofi/given_{j}": "0.5" for j in range(15)}
    return {"method": "cofi", "seed": "0", "cofi/target_sparsity": str(sparsity), **drawn, **given}


def tags(i: int) -> dict[str, str]:
    """As a search writes them."""
    drawn = ["cofi/target_sparsity", *(f"cofi/drawn_{j}" for j in range(7))]
    own = {"study": "big", "study_id": "u", "task": "cola", "kind": "trial", "trial_id": f"big-{i:05d}"}
    own |= {"state": "complete", "reason": "", "message": "", "method": "cofi", "metric": "accuracy"}
    own |= {"dev_split": "dev", "reference_score": "0.5", "searched": json.dumps(drawn)}
    contract = dict.fromkeys(("device", "device_name", "dtype", "torch", "task", "data", "teacher"), "same")
    contract |= {"num_threads": "2", "selection": "train", "scenario": "throughput"}
    said = {f"cofi.{name}": text for name, text in own.items()}
    said |= {f"contract.{name}": text for name, text in contract.items()}
    return said | {f"version.{j}": "1.0" for j in range(5)}


def metrics(score: float, speedup: float, sparsity: float) -> dict[str, float]:
    """A measurement and the last values of the curves."""
    found = {"score": score, "speedup": speedup, "sparsity": sparsity, "model_sparsity": sparsity / 2}
    found |= {
        "num_parameters": 1e6,
        "macs": 1e6,
        "seconds": 60.0,
        "score/accuracy": score,
        "score/matthews": 0.5,
    }
    found |= {
        "teacher/accuracy": 0.9,
        "teacher/matthews": 0.6,
        "dense/num_parameters": 2e6,
        "dense/macs": 2e6,
    }
    found |= {f"{scenario}/{name}": speedup for scenario in SCENARIOS for name in TIMED[:-1]}
    found |= {f"{scenario}/num_pairs": 50.0 for scenario in SCENARIOS}
    return found | {f"loss/{j}": 0.1 for j in range(10)}


def predict(directory: Path, points: list[tuple[float, float]], stream: np.random.Generator) -> None:
    """Answers that are right as often as the score says, for the models that a report looks at."""
    labels = stream.integers(0, 2, ROWS, dtype=np.uint8)
    for i in sureness.nearest(points, sureness.MOST_MODELS):
        wrong = np.arange(ROWS) >= round(points[i][0] * ROWS)
        said = {"labels": labels, "predicted": labels ^ wrong.astype(np.uint8), "dense": labels}
        place = directory / "mlartifacts" / f"{i:032x}" / "artifacts"
        place.mkdir(parents=True)
        save_file({f"dev/{name}": row for name, row in said.items()}, place / document.PREDICTIONS)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as place:
        source = tracked.connect(fill(Path(place), trials))
        seconds = {}
        start = time.perf_counter()
        source.chosen = source.studies()
        found = document.Report(source)
        seconds["table"] = time.perf_counter() - start
        found.document()
        seconds["document"] = time.perf_counter() - start
        start = time.perf_counter()
        _, made = report.files(source)
        seconds["all_files"] = time.perf_counter() - start
    megabytes = {name: round(len(content) / 1e6, 2) for name, content in sorted(made.items())}
    rounded = {name: round(value, 2) for name, value in seconds.items()}
    print(json.dumps({"trials": trials, "seconds": rounded, "megabytes": megabytes}))


if __name__ == "__main__":
    main()
