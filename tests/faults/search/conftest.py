"""Whole searches as a user runs them, in processes that can be told from all others and that faults hit."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psutil
import pytest
from optuna.trial import TrialState

from cofi_tune import compress, mirror, study  # noqa: F401 - for copies of this process
from cofi_tune.search import main

SITE = Path(__file__).parents[1] / "site"
MARK = "COFI_TEST_RUN"
SPACE = """
def space(draw):
    return {
        "cofi/target_sparsity": draw.suggest_float("cofi/target_sparsity", 0.3, 0.6),
        "cofi/mask_travel": 40.0,
        "cofi/warmup_fraction": 0.3,
    }
POINTS = [{"cofi/target_sparsity": 0.5}]
"""
CHAINED = """
def space(draw):
    return {
        "cofi/target_sparsity": draw.suggest_float("cofi/target_sparsity", 0.3, 0.6),
        "cofi/layer_mix": draw.suggest_float("cofi/layer_mix", 0.4, 0.6),
        "cofi/mask_travel": 40.0,
        "cofi/warmup_fraction": 0.3,
    }
POINTS = [{"cofi/layer_mix": 0.5}]
CHAIN = (0.5, 0.6)
"""


class Forked:
    """A search in a copy of this process, which has imported everything: as much of `Popen` as tests need.

    Only for searches without Ray: the copy has none of the threads of this process.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        reads, writes = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reads)
            self._run(writes, arguments, environment)
        os.close(writes)
        self.stdout = os.fdopen(reads)

    def _run(self, writes: int, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """The copy's part; never returns."""
        status = 70
        try:
            os.setsid()
            for number in (1, 2):
                os.dup2(writes, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler)
            os.environ.update(environment)
            spec = importlib.util.spec_from_file_location("faults", SITE / "sitecustomize.py")
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
            status = main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def communicate(self, timeout: float = 600) -> tuple[str, None]:
        guard = threading.Timer(timeout, self.kill)
        guard.start()
        with self.stdout:
            text = self.stdout.read()
        self.wait()
        guard.cancel()
        return text, None

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Search:
    """One study `s` below a directory, run as a command as often as need be."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.inside: list[str] = []
        """A command that runs another one."""
        self.flags: list[str] = []
        self.faults: list[dict[str, Any]] = []
        self.constants: dict[str, float] = {}
        self.forks = True
        """Whether its runs without Ray may be copies of this process."""
        self.copies: list[Forked] = []
        self.environment: dict[str, str] = {}
        self.trials = 2
        self.space = output / "easy.py"
        self.has_models = True
        self.storage = f"sqlite:///{output}/optuna.db"
        self.tracking_uri = f"sqlite:///{output}/mlflow.db"

    def command(self, *more: str) -> list[str]:
        return [*self.inside, sys.executable, "-m", "cofi_tune.search", *self.arguments(*more)]

    def arguments(self, *more: str) -> list[str]:
        return [
            *("--task", "grammar", "--model", "tiny"),
            *("--trials", str(self.trials), "--max-train-samples", "480", "--epochs", "4"),
            *("--teacher-epochs", "1", "--cpus-per-worker", "1", "--name", "s"),
            *("--checkpoint-seconds", "0.3", "--output", str(self.output)),
            *("--space", str(self.space), *self.flags, *more),
        ]

    def chained(self) -> Search:
        """Three trials: a chain of two, and the first of another."""
        self.space.write_text(CHAINED)
        self.trials = 3
        self.flags = [*self.flags, "--chain-epochs", "1"]
        self.environment = {"COFI_TEST_NO_RAY": "1"}
        return self

    def start_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SITE), str(Path(__file__).parents[3])]),
            "COFI_TEST_FAULTS": json.dumps(self.faults),
            "COFI_TEST_CONSTANTS": json.dumps(self.constants),
            "COFI_TEST_CLOCK": "1",
            MARK: str(self.output),
            **self.environment,
        }

    def start(self, *more: str) -> Any:
        if self.forks and "COFI_TEST_NO_RAY" in self.environment:
            self.copies.append(Forked(self.arguments(*more), self.start_environment()))
            return self.copies[-1]
        return subprocess.Popen(
            self.command(*more),
            env=self.start_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *more: str, status: int = 0, timeout: float = 600) -> str:
        process = self.start(*more)
        try:
            text = process.communicate(timeout=timeout)[0]
        finally:
            process.kill()
        assert process.returncode == status, text
        assert "Traceback (most" not in text, text
        return text

    def killed_in_turn(self, faults: Sequence[dict[str, Any]], once: Path) -> None:
        """Start it again and again, each time with one fault, which kills it."""
        for fault in faults:
            struck = once / f"struck-{len([*once.glob('struck-*')])}"
            self.faults = [{**fault, "do": "kill", "once": str(struck)}]
            process = self.start()
            text = process.communicate(timeout=600)[0]
            assert process.returncode == -signal.SIGKILL, text
            assert struck.exists(), fault
        self.faults = []

    def until(self, process: Any, words: str) -> str:
        """Everything it printed up to a line with these words."""
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if words in line:
                return "".join(lines)
        raise AssertionError(f"{words!r} is not in " + "".join(lines))

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="s", storage=self.storage)

    def reasons(self) -> list[str | None]:
        return [trial.user_attrs["outcome"]["reason"] for trial in self.study.trials]

    def curve(self, trial: int) -> list[tuple[int, dict[str, float], float | None]]:
        """Step, losses and selection score of every report, as the driver heard them."""
        path = self.output / "s" / "trials" / f"s-{trial:04d}" / "history.jsonl"
        raw = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [(one["step"], one["losses"], one["selection_score"]) for one in raw]

    def front(self) -> list[tuple[str, bool, float, float]]:
        [front] = json.loads((self.output / "s" / "front.json").read_text())["fronts"]
        rows = front["trials"]
        return sorted((row["trial"], row["on_front"], row["score"], row["speedup"]) for row in rows)

    def check(self) -> None:
        """As many trials as were asked for, each once: in Optuna, in MLflow, on disk; nothing left over."""
        self.check_trials()
        self.no_process_is_left()

    def check_trials(self) -> None:
        """The same, but for processes."""
        ids = [f"s-{number:04d}" for number in range(self.trials)]
        trials = self.study.trials
        assert [trial.user_attrs["trial_id"] for trial in trials] == ids
        assert all(trial.state.is_finished() for trial in trials), [trial.state for trial in trials]
        client = mlflow.MlflowClient(tracking_uri=self.tracking_uri)
        runs = client.search_runs([client.get_experiment_by_name("s").experiment_id])
        assert sorted(run.info.run_name for run in runs) == sorted([*ids, "s (study)"])
        assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
        for run in runs:
            if run.info.run_name in ids:
                written = [point.step for point in client.get_metric_history(run.info.run_id, "loss")]
                heard = [step for step, _, _ in self.curve(ids.index(run.info.run_name))]
                assert sorted(written) == heard
        for number, trial in enumerate(trials):
            directory = self.output / "s" / "trials" / ids[number]
            assert not (directory / "checkpoints").exists()
            if trial.state is TrialState.COMPLETE and self.has_models:
                assert (directory / "model" / "model.safetensors").is_file()
        assert not list((self.output / "s").glob(".*"))

    def find(self, words: str = "") -> list[psutil.Process]:
        """Its processes, and those that they started, whose command holds these words."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.output) and words in " ".join(process.cmdline()):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def no_process_is_left(self, seconds: float = 300) -> None:
        """Soon; Ray's agents outlive a raylet that was killed by up to a minute."""
        deadline = time.monotonic() + seconds
        while (left := self.find()) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert left == []
        assert all(copy.returncode is not None for copy in self.copies)

    def end_all(self) -> None:
        """Whatever a failed test left running; all of it is ours by its mark."""
        for process in self.find():
            with contextlib.suppress(psutil.Error):
                process.kill()
        for copy in self.copies:
            copy.kill()
            copy.wait()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded data and a teacher, made once; and what a search without faults comes to."""
    output = tmp_path_factory.mktemp("prepared")
    (output / "easy.py").write_text(SPACE)
    search = Search(output)
    search.environment = {"COFI_TEST_NO_RAY": "1"}
    search.run()
    search.check()
    return output


@pytest.fixture(scope="session")
def undisturbed(prepared: Path) -> Search:
    """A search that nothing happened to."""
    return Search(prepared)


@pytest.fixture
def search(prepared: Path, tmp_path: Path) -> Any:
    """A new study with the data and the teacher that are there already."""
    made = Search(_copied(prepared, tmp_path / "runs"))
    yield made
    made.end_all()


@pytest.fixture(scope="session")
def undisturbed_chain(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A search with a chain that nothing happened to."""
    made = Search(_copied(prepared, tmp_path_factory.mktemp("chain") / "runs")).chained()
    made.run()
    made.check()
    return made


def _copied(prepared: Path, output: Path) -> Path:
    for name in ("data", "teachers"):
        shutil.copytree(prepared / name, output / name)
    shutil.copy(prepared / "easy.py", output)
    return output


class Bucket:
    """moto's server, which keeps everything in memory, with one bucket."""

    def __init__(self, log: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "s3cret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                stdout=file,
                stderr=file,
            )
        deadline = time.monotonic() + 300
        while True:
            with contextlib.suppress(OSError):
                self.make("bucket")
                return
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    def make(self, name: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{self.address}/{name}", method="PUT"), timeout=5)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def bucket(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    made = Bucket(tmp_path / "moto.log", free_port())
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mirror._opened.cache_clear()
    yield made
    made.end()
    mirror._opened.cache_clear()


@pytest.fixture
def in_bucket(search: Any, bucket: Bucket, tmp_path: Path) -> Any:
    """A new study in the bucket, its databases on a disk that stays."""
    stays = tmp_path / "stays"
    stays.mkdir()
    search.space = Path(shutil.copy(search.output / "easy.py", stays))
    search.place = mirror.of_url("s3://bucket/runs")
    search.output = search.place.local
    search.has_models = False  # those of an earlier disk stay in the bucket
    search.forks = False  # pyarrow's S3 has threads
    search.storage, search.tracking_uri = (f"sqlite:///{stays}/{name}.db" for name in ("optuna", "mlflow"))
    search.flags = ["--output", "s3://bucket/runs/", "--storage", search.storage]
    search.flags += ["--tracking-uri", search.tracking_uri]
    return search
