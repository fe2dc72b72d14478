"""The hub: read through `datasets`, and one readable line when it is not there or not itself."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cofi_tune import tasks
from cofi_tune.data import hub
from cofi_tune.data.reader import DataError
from cofi_tune.data.sources import Source, read

READ_HUB = (
    "from cofi_tune import tasks; from cofi_tune.data.sources import *;"
    "from cofi_tune.data.reader import DataError\n"
    "try: read(tasks.load('cola'), Source.hub())\n"
    "except DataError as error: print(error)"
)


def hub_error(**environment: str) -> str:
    """What a fresh process says."""
    unset = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HF_HOME")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", READ_HUB],
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    message = done.stdout.rstrip("\n")
    assert message
    assert "\n" not in message
    assert "--data-dir" in message
    assert "--task grammar" in message
    return message


@contextlib.contextmanager
def serving(status: int, body: bytes, delay: float = 0) -> Iterator[str]:
    """A server on the loopback that gives every question the same answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay)
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_unreachable_hub_is_an_error(tmp_path: Path) -> None:
    # A port of the loopback on which nobody listens.
    message = hub_error(HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path))
    assert "cannot be reached" in message


def test_offline_hub_without_a_cache_is_an_error(tmp_path: Path) -> None:
    message = hub_error(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "cannot be read" in message


def test_silent_hub_is_an_error_too(tmp_path: Path) -> None:
    with serving(200, b"{}", delay=3600) as endpoint:
        message = hub_error(HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path))
    assert endpoint in message


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>Welcome to the hotel</html>", "this is not the hub"),
        (200, b"[1, 2]", "this is not the hub"),
        (200, b"\xff\xfe\x00", "this is not the hub"),
        (403, b"no", "answers 403"),
        (404, b"", "there is no such thing"),
        (429, b"", "too many requests"),
        (500, b"oops", "answers 500"),
    ],
)
def test_hubs_that_answer_something_else(
    status: int, body: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    with serving(status, body) as endpoint:
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(DataError) as error:
            read(tasks.load("cola"), Source.hub())
        with pytest.raises(DataError, match="model no-such-model: no such directory, and http"):
            hub.fetch_model("no-such-model")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(*args: Any, **kwargs: Any) -> dict[str, Any]:
        asked.append((args, kwargs))
        names = ["entailment", "neutral", "contradiction"]
        features = datasets.Features(
            premise=datasets.Value("string"),
            hypothesis=datasets.Value("string"),
            label=datasets.ClassLabel(names=wrong_order or names),
        )
        rows = {"premise": ["p"] * 6, "hypothesis": list("abcdef"), "label": labels}
        dataset = datasets.Dataset.from_dict(rows, features=features)
        return dict.fromkeys(["train", "validation_matched", "validation_mismatched"], dataset)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "probe", lambda _: None)
    labels, wrong_order = [0, 1, 2, 0, 1, 2], None
    dev = read(tasks.load("mnli"), Source.hub())["dev_mismatched"]
    assert dev.texts[5] == ("p", "f")
    assert dev.labels.tolist() == labels
    [((path, config), options)] = asked
    assert (path, config, options) == ("nyu-mll/glue", "mnli", {"revision": hub.REVISION})
    labels = [0, 1, 2, 0, 1, -1]
    with pytest.raises(DataError, match=r"glue mnli train:6: column label: unknown label '-1'"):
        read(tasks.load("mnli"), Source.hub())
    labels, wrong_order = [0] * 6, ["contradiction", "entailment", "neutral"]
    with pytest.raises(DataError, match="classes"):
        read(tasks.load("mnli"), Source.hub())
