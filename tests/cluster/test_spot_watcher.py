"""The spot watcher against metadata servers of our own, over real HTTP; and Ray's own drain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster import spot_watcher
from cluster.spot_watcher import Aws, Gcp, Notice, Unreachable, Watcher

WATCHER = Path(__file__).parents[2] / "cluster" / "spot_watcher.py"
ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
GCE = "/computeMetadata/v1/instance/"


class Metadata:
    """A metadata server: of EC2 with IMDSv2 enforced, and of Compute Engine."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, str] = {GCE + "preempted": "FALSE", GCE + "maintenance-event": "NONE"}
        self.tokens: list[str] = []
        self.status: int | None = None
        """Of every answer; None: as it should be."""
        self.delay_s = 0.0
        self.asked: list[str] = []

    def handle(self, method: str, path: str, headers: Any) -> tuple[int, str]:
        self.asked.append(path)
        time.sleep(self.delay_s)
        if self.status is not None:
            return self.status, ""
        if path == "/latest/api/token":
            if method != "PUT" or not headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
                return 400, ""
            self.tokens.append(f"token-{len(self.asked)}")
            return 200, self.tokens[-1]
        if path.startswith("/latest/"):
            if not self.tokens or headers.get("X-aws-ec2-metadata-token") != self.tokens[-1]:
                return 401, ""
        elif headers.get("Metadata-Flavor") != "Google":
            return 403, ""
        return (200, self.answers[path]) if path in self.answers else (404, "")


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    made = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = made.handle(self.command, self.path, self.headers)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


def in_two_minutes(**other: Any) -> str:
    at = datetime.now(UTC) + timedelta(seconds=120)
    return json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"), **other})


@pytest.fixture
def drains() -> list[Notice]:
    return []


def watcher(look: Callable[[], Notice | None], drains: list[Notice], works: bool = True) -> Watcher:
    def drain(notice: Notice) -> bool:
        drains.append(notice)
        return works

    return Watcher(look, drain)


def test_no_notice(metadata: Any) -> None:
    assert Aws(metadata.url).look() is None
    assert Gcp(metadata.url).look() is None
    assert len(metadata.tokens) == 1


def test_the_notice_of_aws(metadata: Any) -> None:
    metadata.answers[ACTION] = in_two_minutes()
    notice = Aws(metadata.url).look()
    assert notice is not None
    assert notice.text == "AWS: terminate"
    assert notice.seconds is not None
    assert 0 < notice.seconds <= 110


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 110),
        ("terminate", 110),
        ("[]", 110),
        ('{"action": "stop"}', 110),
        ('{"action": "stop", "time": "soon"}', 110),
        ('{"action": "stop", "time": "2020-01-01T00:00:00Z"}', 0),
        ('{"action": "stop", "time": "2999-01-01T00:00:00Z"}', 110),
    ],
)
def test_a_notice_of_aws_that_says_little_is_one(metadata: Any, text: str, seconds: int) -> None:
    metadata.answers[ACTION] = text
    notice = Aws(metadata.url).look()
    assert notice is not None
    assert notice.seconds == seconds


def test_a_token_that_ended_is_renewed(metadata: Any) -> None:
    aws = Aws(metadata.url)
    aws.look()
    metadata.tokens.append("another")
    assert aws.look() is None
    assert len(metadata.tokens) == 3


def test_the_notices_of_google(metadata: Any) -> None:
    metadata.answers[GCE + "maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    assert Gcp(metadata.url).look() is None
    metadata.answers[GCE + "maintenance-event"] = "TERMINATE_ON_HOST_MAINTENANCE"
    assert Gcp(metadata.url).look() == ("Google Cloud: ended for maintenance", None)
    metadata.answers[GCE + "preempted"] = "TRUE"
    assert Gcp(metadata.url).look() == ("Google Cloud: preempted", 25)


@pytest.mark.parametrize("status", [400, 403, 405, 500, 503])
@pytest.mark.parametrize("provider", [Aws, Gcp])
def test_refusals_are_no_notice(metadata: Any, provider: Any, status: int) -> None:
    metadata.status = status
    with pytest.raises(Unreachable, match=str(status)):
        provider(metadata.url).look()


@pytest.mark.parametrize("provider", [Aws, Gcp])
def test_nobody_and_nobody_in_time(
    metadata: Any, provider: Any, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreachable):
        provider(f"http://127.0.0.1:{free_port()}").look()
    monkeypatch.setattr(spot_watcher, "REQUEST_SECONDS", 0.1)
    metadata.delay_s = 0.5
    with pytest.raises(Unreachable):
        provider(metadata.url).look()


def test_a_proxy_is_not_asked(metadata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Gcp(metadata.url).look() is None


def test_one_drain(metadata: Any, drains: list[Notice]) -> None:
    ours = watcher(Aws(metadata.url).look, drains)
    assert not ours.poll()
    metadata.answers[ACTION] = in_two_minutes()
    ours.run(0.01)
    assert len(drains) == 1


def test_a_drain_that_fails_is_tried_again(metadata: Any, drains: list[Notice]) -> None:
    metadata.answers[ACTION] = in_two_minutes()
    ours = watcher(Aws(metadata.url).look, drains, works=False)
    assert [ours.poll(), ours.poll()] == [False, False]
    assert len(drains) == 2


def test_a_warning_that_is_withdrawn_drains_nothing(metadata: Any, drains: list[Notice]) -> None:
    ours = watcher(Aws(metadata.url).look, drains)
    for _ in range(3):
        metadata.answers[REBALANCE] = "{}"
        ours.poll()
        del metadata.answers[REBALANCE]
        ours.poll()
    assert drains == []


def test_a_warning_that_stands_drains_once_and_the_notice_once_more(
    metadata: Any, drains: list[Notice]
) -> None:
    ours = watcher(Aws(metadata.url).look, drains)
    metadata.answers[REBALANCE] = "{}"
    assert not any(ours.poll() for _ in range(5))
    assert [notice.seconds for notice in drains] == [None]
    metadata.answers[ACTION] = in_two_minutes()
    assert ours.poll()
    assert len(drains) == 2


def test_silence_is_said_once(metadata: Any, drains: list[Notice], caplog: pytest.LogCaptureFixture) -> None:
    ours = watcher(Aws(metadata.url).look, drains)
    with caplog.at_level("INFO"):
        metadata.status = 503
        for _ in range(4):
            ours.poll()
        metadata.status = None
        ours.poll()
    assert [record.message for record in caplog.records] == [
        "the metadata server does not answer (status 503); trying on",
        "the metadata server answers again",
    ]


@pytest.fixture
def start(metadata: Any, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """The script itself, with a `ray` that writes down what it is asked."""
    fake = tmp_path / "ray"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {tmp_path}/asked\n')
    fake.chmod(0o755)
    started = []

    def begin(*flags: str, provider: str = "aws") -> subprocess.Popen[str]:
        command = [sys.executable, str(WATCHER), "--provider", provider, "--metadata", metadata.url]
        command += ["--poll-seconds", "0.1", "--ray", str(fake), "--lock", str(tmp_path / "lock"), *flags]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_script_drains_once_and_ends(start: Any, metadata: Any, tmp_path: Path) -> None:
    process = start()
    assert "watching" in process.stdout.readline()
    metadata.answers[ACTION] = in_two_minutes()
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "draining this node" in text
    [line] = (tmp_path / "asked").read_text().splitlines()
    assert line.startswith(
        "drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message AWS: terminate "
        "--deadline-remaining-seconds 1"
    )
    assert "--node-id" not in line


def test_sigterm_ends_it(start: Any, tmp_path: Path) -> None:
    process = start("--poll-seconds", "60", provider="gcp")
    process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert not (tmp_path / "asked").exists()


def test_one_at_a_time(start: Any) -> None:
    first = start()
    first.stdout.readline()
    second = start()
    text, _ = second.communicate(timeout=300)
    assert "another watcher" in text
    assert second.returncode == 0
    assert first.poll() is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--metadata", "foo"), "foo is no address such as http://169.254.169.254"),
        (("--metadata", "http://"), "is no address"),
        (("--lock", "/proc/x/l"), "--lock /proc/x/l: No such file or directory"),
        (("--lock", "/"), "--lock /: Is a directory"),
        (("--poll-seconds", "0"), "write more than 0"),
        (("--poll-seconds=-1",), "write more than 0"),
        (("--poll-seconds", "nan"), "nan is no time to wait"),
        (("--poll-seconds", "inf"), "inf is no time to wait"),
        (("--provider", "azure"), "invalid choice"),
    ],
)
def test_a_wrong_flag_is_one_line(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    command = [sys.executable, str(WATCHER), "--provider", "aws", "--lock", str(tmp_path / "lock"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_it_needs_no_package() -> None:
    code = f"import runpy; runpy.run_path({str(WATCHER)!r})"
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.long
def test_ray_drains_the_node(metadata: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        metadata.answers[ACTION] = in_two_minutes()
        command = [sys.executable, str(WATCHER), "--provider", "aws", "--metadata", metadata.url]
        command += ["--node-id", node.node_id, "--address", cluster.address]
        command += ["--ray", str(ray_command()), "--lock", str(tmp_path / "lock")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0
        assert "drained" in done.stdout, done.stdout
        ray.shutdown()  # one that other tests have left
        ray.init(address=cluster.address, log_to_driver=False)
        deadline = time.monotonic() + 300
        while (state := state_of(node.node_id))["Alive"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # Not lost: Ray Train and the autoscaler tell the one from the other.
        assert state["DeathReasonMessage"] == "AWS: terminate"
    finally:
        ray.shutdown()
        cluster.shutdown()


def ray_command() -> Path:
    """Ray's command, beside the interpreter or on the path of the package."""
    return next(
        path
        for path in (Path(sys.executable).with_name("ray"), Path(ray.__file__).parents[4] / "bin" / "ray")
        if path.exists()
    )


def state_of(node_id: str) -> dict[str, Any]:
    state: dict[str, Any] = next(node for node in ray.nodes() if node["NodeID"] == node_id)
    return state
