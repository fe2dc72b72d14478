"""Nothing that a search starts can be reached from another machine, nor used by who has no token."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.ray

SECRET = "s3cret-that-nobody-else-has"
MARK = "COFI_LISTENING_TEST"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
SPACE = """
def space(draw):
    return {"cofi/target_sparsity": 0.5, "cofi/mask_travel": 40.0, "cofi/warmup_fraction": 0.3}
"""


def ours(mark: str) -> list[psutil.Process]:
    """Every process that the command has started, and itself."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def listening(mark: str) -> list[tuple[str, int, str]]:
    """Address, port and command of everything that waits for connections."""
    found = []
    for process in ours(mark):
        try:
            words = " ".join(process.cmdline())
            sockets = process.net_connections("inet")
        except psutil.Error:
            continue
        found += [(s.laddr.ip, s.laddr.port, words[:200]) for s in sockets if s.status == psutil.CONN_LISTEN]
    return found


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A search on Ray Train workers, in the middle of its first trial."""
    output = tmp_path_factory.mktemp("runs")
    (output / "space.py").write_text(SPACE)
    command = [
        *(sys.executable, "-m", "cofi_tune.search", "--task", "grammar", "--model", "tiny", "--trials", "1"),
        *("--max-train-samples", "480", "--epochs", "400", "--teacher-epochs", "1", "--name", "s"),
        *("--cpus-per-worker", "1", "--workers-per-trial", "2", "--checkpoint-seconds", "100"),
        *("--output", str(output), "--space", str(output / "space.py")),
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, MARK: str(output), "COFI_TEST": "1", "AWS_SECRET_ACCESS_KEY": SECRET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "trial 0000 prune" in line:
                break
        assert process.poll() is None, "".join(said)
        yield str(output)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
        end = time.monotonic() + 20
        while ours(str(output)) and time.monotonic() < end:
            time.sleep(0.5)
        for left in ours(str(output)):
            left.kill()


def test_a_search_listens_on_loopback_alone(mark: str) -> None:
    found = listening(mark)
    assert len({words for _, _, words in found}) > 5, "Ray's daemons, its dashboard, the workers"
    elsewhere = [one for one in found if one[0] not in LOOPBACK]
    assert not elsewhere, "\n".join(map(str, elsewhere))


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/version", "/nodes?view=summary", "/api/v0/actors"])
def test_who_has_no_token_is_refused_by_the_dashboard(mark: str, path: str) -> None:
    assert ask(dashboard(mark) + path) in (401, 403)


def test_credentials_are_in_no_log_of_ray(mark: str) -> None:
    words = []
    for process in ours(mark):
        with contextlib.suppress(psutil.Error):  # a worker that has just ended
            words += process.cmdline()
    [session] = {found[1] for word in words if (found := re.match(r"--session-dir=(\S+)$", word))}
    logs = [path for path in Path(session).rglob("*") if path.is_file()]
    assert len(logs) > 10
    for path in logs:
        with contextlib.suppress(FileNotFoundError):
            assert SECRET.encode() not in path.read_bytes(), path


def test_who_has_no_token_submits_no_job(mark: str) -> None:
    job = b'{"entrypoint": "true"}'
    assert ask(f"{dashboard(mark)}/api/jobs/", job) in (401, 403)
    wrong = {"Authorization": "Bearer " + "0" * 64}
    assert ask(f"{dashboard(mark)}/api/jobs/", job, wrong) in (401, 403)


def dashboard(mark: str) -> str:
    """Its address: Ray takes the first free port from 8265 on."""
    [port] = {
        port
        for _, port, words in listening(mark)
        if "dashboard/dashboard.py" in words and 8265 <= port < 8365
    }
    return f"http://127.0.0.1:{port}"


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    """The status of an answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with opener.open(asked, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
