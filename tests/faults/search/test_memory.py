"""A search in a container whose memory is short: fewer trials at a time; what Ray kills ends in words."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.faults, pytest.mark.long]

GROUPS, LIMIT = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
if not (GROUPS / LIMIT).exists():
    GROUPS, LIMIT = Path("/sys/fs/cgroup"), "memory.max"
ENTER = 'echo $$ > "$1/cgroup.procs" && mount --bind "$1" "$2" && shift 2 && exec "$@"'
FILLS = {"at": "cofi_tune.loop:Training._train", "do": "fill"}
KILLED = (
    r"trial 0000: its process was ended for lack of memory \(the machine had \d\.\d of 5\.0 GB in use\);"
    " it resumes from its last checkpoint"
)
RAYS_OWN = ("OutOfMemory", "OOM", "raylet", "low on memory", "RAY_", "worker(s)")


@pytest.fixture
def contained(search: Any) -> Iterator[Callable[[float], Any]]:
    """Puts the search in a cgroup of its own with so many GB, which it takes for the whole machine's."""
    group = GROUPS / f"cofi-{os.getpid()}"

    def put(limit_gb: float) -> Any:
        try:
            group.mkdir()
            (group / LIMIT).write_text(str(int(limit_gb * 1e9)))
        except OSError:
            pytest.skip("this machine lets nobody make a cgroup")
        search.inside = ["unshare", "-m", "sh", "-c", ENTER, "sh", str(group), str(GROUPS)]
        return search

    if shutil.which("unshare") is None:
        pytest.skip("unshare is needed to enter a cgroup")
    yield put
    search.end_all()
    search.no_process_is_left()
    if group.exists():
        group.rmdir()


def killing(search: Any, times: int, once: Path) -> Any:
    """Ray kills the first trial so often, each time some steps after its last checkpoint."""
    # Far from the limit, or the kernel would be quicker than Ray's monitor.
    search.environment = {"RAY_memory_usage_threshold": "0.75", "RAY_memory_monitor_refresh_ms": "50"}
    search.faults = [{**FILLS, "nth": 20 + n, "once": str(once / f"struck-{n}")} for n in range(times)]
    return search


@pytest.mark.parametrize("workers", ["0", "1"])
def test_trial_that_was_killed_for_memory_goes_on(
    contained: Any, undisturbed: Any, tmp_path: Path, workers: str
) -> None:
    search = killing(contained(5.0), 1, tmp_path)
    text = search.run("--workers-per-trial", workers)
    assert len(re.findall(KILLED, text)) == 1, text
    assert not any(words in text for words in RAYS_OWN), text
    assert search.reasons() == [None, None]
    assert search.front() == undisturbed.front()
    search.check()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_trial_that_is_killed_for_memory_twice_fails_and_no_other(
    contained: Any, tmp_path: Path, workers: str
) -> None:
    search = killing(contained(5.0), 2, tmp_path)
    text = search.run("--workers-per-trial", workers)
    assert len(re.findall(KILLED, text)) == 1, text
    assert re.search("trial 0000 fail, out_of_memory: .* for the second time; lower --concurrency", text), (
        text
    )
    assert not any(words in text for words in RAYS_OWN), text
    assert search.reasons() == ["out_of_memory", None]
    search.check()


def test_fewer_trials_run_than_were_asked_for(contained: Any) -> None:
    search = contained(2.5)
    text = search.run("--concurrency", "2")
    assert re.search(r"at a time: 1 instead of 2: each needs about 0\.9 GB, and there are 1\.\d GB", text), (
        text
    )
    first_ends, second_starts = text.index("trial 0000 complete"), text.index("trial 0001 starts")
    assert first_ends < second_starts, text
    search.check()
