"""On a spot worker: polls the provider's notice and drains the Ray node before the machine goes.

A drained node gets nothing new and is replaced; what runs there goes on elsewhere from its checkpoint. Only
the standard library: it must run when nothing else does. Ray on plain machines does not watch by itself.

Notices: AWS gives two minutes (`spot/instance-action`), and may warn of a higher risk earlier
(`events/recommendations/rebalance`); Google Cloud gives 30 seconds (`instance/preempted`), and an hour before
it ends a machine with a GPU for maintenance (`instance/maintenance-event`).
"""

from __future__ import annotations

import argparse
import fcntl
import http.client
import json
import logging
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("spot_watcher")

METADATA = "http://169.254.169.254"
"""Of both providers: the same link-local address on every machine."""
REQUEST_SECONDS = 2.0
TOKEN_SECONDS = 300
"""Life of a session token of IMDSv2."""
AWS_SECONDS, GCP_SECONDS = 110, 25
"""Of the notice, less what a poll and the drain itself may take."""
MARGIN_SECONDS = 10
DRAIN_SECONDS = 30.0
POLLS_WITHOUT_DEADLINE = 2
"""A warning without a deadline must stand for as many polls: there is time, and it may be withdrawn."""


class Notice(NamedTuple):
    """That the machine goes."""

    text: str
    seconds: int | None
    """Until then, at least 0; None: unknown, and not soon."""


class Unreachable(Exception):  # noqa: N818
    """The metadata server gave no answer that can be used."""


@dataclass
class Aws:
    """The notices of EC2, by IMDSv2: every question carries a token, which is renewed when it ends."""

    metadata: str = METADATA
    token: str | None = None

    def look(self) -> Notice | None:
        """The most urgent notice.

        Raises:
            Unreachable: no answer.
        """
        action = self._ask("/latest/meta-data/spot/instance-action")
        if action is not None:
            return Notice(f"AWS: {_action(action)}", _seconds_until(action))
        if self._ask("/latest/meta-data/events/recommendations/rebalance") is not None:
            return Notice("AWS: rebalance recommendation", None)
        return None

    def _ask(self, path: str) -> str | None:
        for _ in range(2):
            if self.token is None:
                life = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
                self.token = _answer(f"{self.metadata}/latest/api/token", life, method="PUT")
                if self.token is None:
                    raise Unreachable("it gives no token")
            try:
                return _answer(self.metadata + path, {"X-aws-ec2-metadata-token": self.token})
            except PermissionError:
                self.token = None
        raise Unreachable("it refuses its own token")


@dataclass(frozen=True)
class Gcp:
    """The notices of Compute Engine."""

    metadata: str = METADATA

    def look(self) -> Notice | None:
        """The most urgent notice.

        Raises:
            Unreachable: no answer.
        """
        if self._ask("preempted") == "TRUE":
            return Notice("Google Cloud: preempted", GCP_SECONDS)
        if self._ask("maintenance-event") == "TERMINATE_ON_HOST_MAINTENANCE":
            return Notice("Google Cloud: ended for maintenance", None)
        return None

    def _ask(self, key: str) -> str | None:
        url = f"{self.metadata}/computeMetadata/v1/instance/{key}"
        try:
            return _answer(url, {"Metadata-Flavor": "Google"})
        except PermissionError as error:
            raise Unreachable(str(error)) from error


@dataclass
class Watcher:
    """Looks, and drains once for a warning without a deadline and once for the notice itself."""

    look: Callable[[], Notice | None]
    drain: Callable[[Notice], bool]
    """Whether Ray took it; it is tried again at the next poll if not."""
    stop: threading.Event = field(default_factory=threading.Event)
    _stood: int = 0
    _warned: bool = False
    _silent: str | None = None

    def run(self, poll_seconds: float) -> None:
        """Until the node is drained for good, or `stop` is set."""
        while not self.stop.is_set():
            if self.poll():
                return
            self.stop.wait(poll_seconds)

    def poll(self) -> bool:
        """Look once; whether there is nothing left to do."""
        try:
            notice = self.look()
        except Unreachable as error:
            if self._silent != str(error):
                log.warning("the metadata server does not answer (%s); trying on", error)
            self._silent = str(error)
            return False
        if self._silent is not None:
            log.info("the metadata server answers again")
            self._silent = None
        if notice is None:
            if self._stood and not self._warned:
                log.info("the warning was withdrawn")
            self._stood = 0
            return False
        if notice.seconds is not None:
            return self.drain(notice)
        self._stood += 1
        if self._stood >= POLLS_WITHOUT_DEADLINE and not self._warned:
            self._warned = self.drain(notice)
        return False


def drain_by(ray: Path, node: str | None, address: str | None) -> Callable[[Notice], bool]:
    """A drain by Ray's own command.

    Args:
        ray: the command.
        node: id of the node in hex digits; None: the one of this machine.
        address: of the cluster; None: the one of this machine.
    """

    def drain(notice: Notice) -> bool:
        command = [str(ray), "drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message", notice.text]
        if notice.seconds is not None:
            command += ["--deadline-remaining-seconds", str(notice.seconds)]
        command += ["--node-id", node] if node else []
        command += ["--address", address] if address else []
        left = "no deadline yet" if notice.seconds is None else f"{notice.seconds} s left"
        log.info("%s (%s): draining this node", notice.text, left)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DRAIN_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            log.error("ray drain-node failed: %s", error)
            return False
        if done.returncode:
            log.error("ray drain-node failed: %s", (done.stderr or done.stdout).strip()[-500:])
            return False
        log.info("drained")
        return True

    return drain


def _answer(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """What the metadata server says; None if there is no such thing.

    Raises:
        PermissionError: the token is missing or has ended.
        Unreachable: no answer in time, or none that means anything.
    """
    request = urllib.request.Request(url, headers=headers, method=method)
    # Never by a proxy: it would answer for another machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=REQUEST_SECONDS) as response:
            return response.read(4096).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.NOT_FOUND:
                return None
            if error.code == http.client.UNAUTHORIZED:
                raise PermissionError(f"status {error.code}") from error
            raise Unreachable(f"status {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreachable(str(getattr(error, "reason", error)) or type(error).__name__) from error


def _action(text: str) -> str:
    try:
        return str(json.loads(text)["action"])
    except (ValueError, KeyError, TypeError):
        return "interruption"


def _seconds_until(text: str) -> int:
    """Until the time in a notice, less a margin, and never more than AWS promises."""
    try:
        at = datetime.strptime(json.loads(text)["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except (ValueError, KeyError, TypeError):
        return AWS_SECONDS
    left = (at - datetime.now(UTC)).total_seconds() - MARGIN_SECONDS
    return max(0, min(AWS_SECONDS, int(left)))


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until the node is drained, or SIGTERM.

    Returns:
        The exit status: 0, also where another watcher runs already.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    try:
        args.lock.parent.mkdir(parents=True, exist_ok=True)
        file = args.lock.open("w")
    except OSError as error:
        parser.error(f"--lock {args.lock}: {error.strerror}")
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another watcher runs here already")
            return 0
        provider = {"aws": Aws, "gcp": Gcp}[args.provider](args.metadata)
        watcher = Watcher(provider.look, drain_by(args.ray, args.node_id, args.address))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watcher.stop.set())
        log.info("watching for a notice of %s every %g s", args.provider, args.poll_seconds)
        watcher.run(args.poll_seconds)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="spot_watcher.py", description="Drain this Ray node before it goes.")
    made.add_argument("--provider", required=True, choices=("aws", "gcp"))
    made.add_argument("--poll-seconds", type=_seconds, default=5.0)
    made.add_argument(
        "--metadata", type=_server, default=METADATA, metavar="URL", help="of the metadata server"
    )
    made.add_argument("--node-id", help="of the node to drain (default: this machine's)")
    made.add_argument("--address", help="of the cluster (default: this machine's)")
    made.add_argument("--ray", type=Path, default=Path(sys.executable).with_name("ray"), metavar="FILE")
    made.add_argument("--lock", type=Path, default=Path.home() / ".ray" / "spot_watcher.lock", metavar="FILE")
    return made


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} is no time to wait: write more than 0")
    return seconds


def _server(text: str) -> str:
    if not re.match(r"https?://[^/\s]+$", text):
        raise argparse.ArgumentTypeError(f"{text} is no address such as {METADATA}")
    return text


if __name__ == "__main__":
    sys.exit(main())
