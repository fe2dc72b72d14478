"""What goes wrong in a week: full disks, hangs, memory, losses that are no numbers, two searches at once."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

pytestmark = pytest.mark.faults

HANGS = {"at": "cofi_tune.loop:Training._train", "nth": 20, "do": "hang"}


@pytest.mark.long
def test_driver_that_stalls_hears_the_end_of_a_trial_all_the_same(search: Any, undisturbed: Any) -> None:
    """Its workers are gone by then: what they said last waits, and nothing waits for ever behind it."""
    search.trials = 1
    search.flags = ["--workers-per-trial", "1"]
    reports = len(undisturbed.curve(0))
    search.faults = [{"at": "cofi_tune.outbox:Outbox.heard", "nth": reports, "do": "stall"}]
    search.run()
    search.check()
    assert search.reasons() == [None]
    assert search.curve(0) == undisturbed.curve(0)


@pytest.mark.long
def test_worker_that_hangs_is_ended_and_goes_on(search: Any, undisturbed: Any, tmp_path: Path) -> None:
    search.flags = ["--trial-timeout", "30s"]
    search.faults = [{**HANGS, "once": str(tmp_path / "once")}]
    text = search.run()
    assert "it goes on from its last checkpoint" in text
    search.check()
    assert search.front() == undisturbed.front()


@pytest.mark.long
def test_trial_that_always_hangs_fails_and_says_where(search: Any) -> None:
    search.trials = 1
    search.flags = ["--trial-timeout", "30s", "--checkpoint-seconds", "1000"]
    search.faults = [HANGS]
    text = search.run(status=5)
    assert search.reasons() == ["timeout"]
    assert "stood still 2 times in a row after step 0" in text
    hang = (search.output / "s" / "trials" / "s-0000" / "hang.txt").read_text()
    assert "sitecustomize.py" in hang, "the line that never returned"
    search.check()


@pytest.mark.long
def test_ray_that_does_not_start_ends_in_words(search: Any) -> None:
    search.environment = {"RAY_TMPDIR": "/proc/nowhere"}
    text = search.run(status=4)
    assert "error: Ray does not start on this machine ([Errno 2]" in text
    search.no_process_is_left()
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.run()
    search.check()


@pytest.mark.long
def test_group_that_never_starts_fails(search: Any) -> None:
    search.trials = 1
    search.flags = ["--trial-timeout", "30s", "--workers-per-trial", "1"]
    search.faults = [{"at": "cofi_tune.worker:in_train", "do": "hang"}]
    search.run(status=5)
    assert search.reasons() == ["timeout"]
    search.check()


@pytest.mark.long
def test_memory_that_runs_out_once_halves_the_batch(search: Any, tmp_path: Path) -> None:
    search.trials = 1
    search.faults = [
        {"at": "cofi_tune.loop:Training._teach", "nth": 30, "do": "memory", "once": str(tmp_path / "once")}
    ]
    text = search.run()
    assert "every batch comes in 2 parts" in text
    assert search.reasons() == [None]
    steps = [step for step, _, _ in search.curve(0)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 60
    search.check()


@pytest.mark.long
def test_memory_that_is_really_gone_fails_the_trial_and_not_the_next(search: Any, tmp_path: Path) -> None:
    """The address space of the worker is limited to what it has, until the trial is over."""
    search.faults = [
        {"at": "cofi_tune.loop:Training._teach", "nth": 30, "do": "limit", "once": str(tmp_path / "1")},
        {
            "at": "cofi_tune.worker:free_memory",
            "nth": 2,
            "when": "after",
            "do": "unlimit",
            "once": str(tmp_path / "2"),
        },
    ]
    search.run()
    assert search.reasons() == ["out_of_memory", None]
    search.check()


def test_loss_that_is_no_number_fails_at_once(search: Any) -> None:
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    space = (search.output / "easy.py").read_text()
    rate = '        "learning_rate_ratio": draw.suggest_float("learning_rate_ratio", 1.0, 1e25, log=True),\n'
    space = space.replace('        "cofi/mask', rate + '        "cofi/mask')
    points = [
        {"cofi/target_sparsity": 0.5, "learning_rate_ratio": 1e24},
        {"cofi/target_sparsity": 0.5, "learning_rate_ratio": 1.0},
    ]
    (search.output / "easy.py").write_text(re.sub(r"POINTS = .*", f"POINTS = {points}", space))
    text = search.run()
    assert search.reasons() == ["non_finite", None]
    assert "goes on from its last checkpoint" not in text
    search.check()


def test_two_searches_at_once_in_fresh_databases(search: Any) -> None:
    search.trials = 1
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    both = [search.start(), search.start("--name", "t")]
    texts = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert not any("MLflow" in line and "cannot" in line for text in texts for line in text.splitlines())
    search.check()


def test_second_driver_is_refused(search: Any) -> None:
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    first = search.start()
    search.until(first, "trial 0000 starts")
    first.send_signal(signal.SIGSTOP)  # or it may be done before the second one looks
    second = search.run(status=2)
    assert f"running already (pid {first.pid} on " in second
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=600)
    assert first.returncode == 0
    search.check()


@pytest.mark.long
def test_ten_in_a_row_leave_nothing(search: Any) -> None:
    for number in range(10):
        search.trials = number + 1
        search.run("--workers-per-trial", "1" if number == 1 else "0")
    search.check()
    assert [trial.state for trial in search.study.trials] == [TrialState.COMPLETE] * 10


FULL = """
import os, subprocess, sys, threading
output, command = sys.argv[1], sys.argv[2:]
process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
for line in process.stdout:
    print(line, end="")
    if "trial 0000 prune" in line:
        try:
            with open(output + "/filler", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(2**16))
        except OSError:
            pass
print("STATUS", process.wait())
os.remove(output + "/filler")
again = os.environ | {"COFI_TEST_NO_RAY": "1"}
print("AGAIN", subprocess.run(command, env=again).returncode, flush=True)
"""


def mounted(search: Any, options: str, command: list[str]) -> str:
    """What a command says to which the output is a file system of its own, with the study's files on it."""
    enter = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is needed to mount a small file system")
    aside = search.output.with_name("aside")
    shutil.copytree(search.output, aside)
    script = (
        'mount -t tmpfs -o "$1" tmpfs "$2" && cp -r "$3"/. "$2" && test -z "$4" || mount -o remount,"$4" "$2"'
        ' && out="$2" && back="$5" && shift 5 && "$@"; status=$?; cp -r "$out"/. "$back"; exit $status'
    )
    size, _, remount = options.partition(" ")
    back = search.output.with_name("back")
    back.mkdir()
    environment = {**search.start_environment(), "COFI_TEST_FAULTS": "[]"}
    done = subprocess.run(
        [*enter, "sh", "-c", script, "sh", size, search.output, aside, remount, back, *command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=600,
    )
    if "mount:" in done.stderr and "permission" in done.stderr.lower():
        pytest.skip("this machine lets nobody mount a file system")
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def test_disk_that_fills_up_ends_in_words_and_the_search_goes_on_with_room(search: Any) -> None:
    search.trials = 2
    command = [sys.executable, "-c", FULL, str(search.output), *search.command()]
    text = mounted(search, "size=400m", command)
    first, _, second = text.partition("STATUS")
    assert second.lstrip().startswith("4\n"), text
    assert "full" in first
    assert "Traceback (most" not in text, text
    assert "AGAIN 0" in text
    front = json.loads((search.output.with_name("back") / "s" / "front.json").read_text())
    assert len(front["fronts"][0]["trials"]) == 2


@pytest.mark.long
def test_disk_that_is_too_small_is_refused_with_the_figures(search: Any) -> None:
    text = mounted(search, "size=60m", search.command())
    assert "exit 4" in text
    assert re.search(r"\d+ MB free, about \d+ MB needed", text), text


@pytest.mark.long
def test_output_that_cannot_be_written_is_refused(search: Any) -> None:
    text = mounted(search, "size=60m ro", search.command())
    assert "exit 4" in text
    assert "cannot be written (Read-only file system); give another directory" in text


def test_driver_that_is_killed_goes_on_and_what_it_left_is_ended(search: Any, undisturbed: Any) -> None:
    # What Ray has started may end by itself before anyone looks; this does not.
    search.faults = [{"at": "cofi_tune.trial:launch", "do": "child"}]
    process = search.start()
    search.until(process, "trial 0000 prune")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)
    assert search.find("sleep")
    search.faults = []
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    text = search.run()
    assert "taking over from pid" in text
    assert "processes that an earlier run of this search left behind" in text
    search.check()
    for trial in range(2):
        assert search.curve(trial) == undisturbed.curve(trial)
    assert search.front() == undisturbed.front()
