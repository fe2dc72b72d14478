"""Searches whose output is a bucket of moto's S3: killed, with the disk gone, they go on from the bucket."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.long]


def lose_the_disk(in_bucket: Any) -> None:
    """As if the machine were another one."""
    in_bucket.end_all()
    in_bucket.no_process_is_left()
    shutil.rmtree(in_bucket.output)


def same(in_bucket: Any, undisturbed: Any) -> None:
    in_bucket.check()
    for trial in range(2):
        assert in_bucket.curve(trial) == undisturbed.curve(trial)
    assert in_bucket.front() == undisturbed.front()
    study = in_bucket.output / "s"
    for trial in ("s-0000", "s-0001"):
        there = in_bucket.place.names(study / "trials" / trial)
        assert {"model", "plan.json", "measurement.json", "predictions.safetensors", "history.jsonl"} <= {
            *there
        }
        assert in_bucket.place.directories(study / "trials" / trial) == ["model"], "and no checkpoints"
    assert {"front.json", "report.html"} <= {*in_bucket.place.names(study)}
    assert not [
        name for name in in_bucket.place.directories(in_bucket.output / "teachers") if name.startswith(".")
    ]


def test_killed_and_resumed_from_the_bucket_on_a_fresh_disk(in_bucket: Any, undisturbed: Any) -> None:
    process = in_bucket.start()
    text = in_bucket.until(process, "trial 0000 prune")
    trial = in_bucket.output / "s" / "trials" / "s-0000"
    deadline = time.monotonic() + 300
    while not in_bucket.place.names(trial / "checkpoints"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    text += process.communicate()[0]
    assert "s3cret" not in text
    lose_the_disk(in_bucket)
    text = in_bucket.run()
    assert "going on: 0 trials are finished, 1 were interrupted" in text
    assert "fine-tuning" not in text
    [[step, _]] = json.loads((trial / "attempts.json").read_text())["attempts"]
    assert step > 0, "from the bucket's checkpoint"
    same(in_bucket, undisturbed)

    # Nothing is left to do, and that on a third disk.
    lose_the_disk(in_bucket)
    in_bucket.environment = {"COFI_TEST_NO_RAY": "1"}
    assert "going on: 2 trials are finished" in in_bucket.run()
    assert in_bucket.front() == undisturbed.front()


POINTS = [
    {"at": "cofi_tune.trial_files:put_checkpoint", "when": "before"},
    {"at": "cofi_tune.trial_files:TrialFiles.over", "when": "before"},
    {"at": "cofi_tune.optuna_study:tell", "when": "after"},
    {"at": "cofi_tune.study_files:StudyFiles.ended", "when": "after"},
]
"""Between any two of them something goes to the bucket."""


def test_disk_lost_at_each_of_many_points(in_bucket: Any, undisturbed: Any, tmp_path: Path) -> None:
    in_bucket.environment = {"COFI_TEST_NO_RAY": "1"}
    for fault in POINTS:
        in_bucket.killed_in_turn([fault], tmp_path)
        lose_the_disk(in_bucket)
    in_bucket.run()
    same(in_bucket, undisturbed)


def test_short_outage_is_waited_for(in_bucket: Any, bucket: Any, undisturbed: Any) -> None:
    in_bucket.environment = {"COFI_TEST_NO_RAY": "1"}
    process = in_bucket.start()
    text = in_bucket.until(process, "trial 0000 prune")
    bucket.process.send_signal(signal.SIGSTOP)
    threading.Timer(10, bucket.process.send_signal, [signal.SIGCONT]).start()
    text += process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    assert "Traceback (most" not in text
    same(in_bucket, undisturbed)


def test_bucket_that_goes_ends_the_search_in_words(in_bucket: Any, bucket: Any) -> None:
    in_bucket.constants = {"cofi_tune.mirror:OUTAGE_SECONDS": 2}
    process = in_bucket.start()
    text = in_bucket.until(process, "trial 0000 prune")
    bucket.end()
    text += process.communicate(timeout=600)[0]
    assert process.returncode == 4, text
    last = text.splitlines()[-1]
    assert last.startswith("error: --output s3://bucket/runs: it does not answer ("), text
    assert last.endswith("once it does, run the same command")
    assert "Traceback (most" not in text
    assert "s3cret" not in text
    [trial] = in_bucket.study.trials
    assert not trial.state.is_finished(), "it goes on another time"


def test_bucket_that_is_not_there_is_said_before_anything_slow(in_bucket: Any) -> None:
    text = in_bucket.run("--output", "s3://nowhere/runs", status=4)
    assert "error: --output s3://nowhere/runs: there is no such bucket; make it, or correct --output" in text
    text = in_bucket.run("--output", "s3://key:s3cret@bucket/runs", status=2)
    assert "s3cret" not in text


def test_place_of_the_study_has_to_be_said(in_bucket: Any) -> None:
    in_bucket.flags = ["--output", "s3://bucket/runs"]
    text = in_bucket.run(status=2)
    assert "say where that goes: --storage postgresql://host/name" in text
    assert not in_bucket.output.exists()
