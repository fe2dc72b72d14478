"""What a search costs beside its trials' own work: seconds a trial, in process and with a Ray Train worker.

    python tests/benchmarks/overhead.py [--trials 10]

A trial's own work is everything that `compress` does: loading, training, scoring, timing, saving. The rest is
overhead: proposals, processes, reports, databases. From the first trial's start to the last one's end, by the
study's own clock. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna

ROOT = Path(__file__).parents[2]


def search(output: Path, name: str, trials: int, workers: int) -> dict[str, float]:
    """One search; its overhead."""
    stopwatch = output / f"{name}.seconds"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "faults" / "site"), str(ROOT)]),
        "COFI_TEST_STOPWATCH": str(stopwatch),
    }
    command = [sys.executable, "-m", "cofi_tune.search", "--task", "grammar", "--space", "smoke"]
    command += ["--model", "tiny", "--max-train-samples", "480", "--epochs", "4", "--teacher-epochs", "1"]
    command += ["--trials", str(trials), "--name", name, "--output", str(output)]
    command += ["--workers-per-trial", str(workers)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 5), done.stdout + done.stderr
    own = {line.split()[0]: float(line.split()[1]) for line in stopwatch.read_text().splitlines()}
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{output}/optuna.db")
    ran = [trial for trial in study.trials if trial.user_attrs["trial_id"] in own]
    assert len(ran) == trials
    starts = [trial.datetime_start.timestamp() for trial in ran if trial.datetime_start]
    ends = [trial.datetime_complete.timestamp() for trial in ran if trial.datetime_complete]
    work = [own[trial.user_attrs["trial_id"]] for trial in ran]
    return {
        "own_seconds_per_trial": sum(work) / trials,
        "overhead_seconds_per_trial": (ends[-1] - starts[0] - sum(work)) / trials,
        "overhead_seconds_first": starts[1] - starts[0] - work[0],
        "overhead_seconds_after_the_first": (ends[-1] - starts[1] - sum(work[1:])) / (trials - 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    trials = parser.parse_args().trials
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for name, workers in (("in-process", 0), ("ray-train", 1)):
            found[name] = search(Path(directory), name, trials, workers)
            print(name, {key: round(value, 2) for key, value in found[name].items()}, flush=True)
    print(json.dumps({"trials": trials, **found}))


if __name__ == "__main__":
    main()
