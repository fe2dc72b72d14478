"""What the tests share: a tiny encoder with random weights, and a toy task that it can learn."""

from __future__ import annotations

import contextlib
import importlib.util
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from cofi_tune import methods
from cofi_tune.config import StudyConfig, TrialConfig
from cofi_tune.data.batches import steps_per_epoch
from cofi_tune.data.encoded import EncodedSplit, EncodedTask, open_encoded, save_meta, save_split
from cofi_tune.data.task import Task
from cofi_tune.loop import Training
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification

torch.set_num_threads(1)

VOCABULARY = 40
PAD, CLS, SEP = 0, 1, 2
NO, YES = 5, 6
"""The tokens that a row's label depends on."""

# Pairs of processes start from one that has imported what is slow.
torch.multiprocessing.set_forkserver_preload(["cofi_tune.compress"])


SHARE_A_RAY = {f"tests/test_{name}.py" for name in ("group_reports", "threads_with_ray", "worker_groups")}


class Scheduling(LoadScopeScheduling):
    """Tests of a file, which may share what is slow to make, are on one process; faults share nothing."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in SHARE_A_RAY:
            return "ray"
        return nodeid if file.startswith("tests/faults/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is slow comes first, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: item.get_closest_marker("ray") is None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Commands that run in this process may have set two, which are slower than one on a busy machine."""
    yield
    torch.set_num_threads(1)


MakeModel = Callable[..., CofiForSequenceClassification]
MakeTask = Callable[..., EncodedTask]


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Every weight and bias, those of the norms included, so that none hides behind a 0 or a 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_norm = isinstance(module, torch.nn.LayerNorm)
            fan_in = parameter.shape[-1] if parameter.dim() == 2 else 1
            scale = fan_in**-0.5 if isinstance(module, torch.nn.Linear) and name == "weight" else 0.3
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.data.copy_(noise + (1.0 if is_norm and name == "weight" else 0.0))


def build_model(
    layers: int = 3, num_labels: int = 2, seed: int = 0, dropout: float = 0.0, attention: str = "sdpa"
) -> CofiForSequenceClassification:
    """A dense encoder of `layers` layers: hidden 32, 4 heads of 8, 48 FFN units."""
    config = CofiConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        head_size=8,
        heads_per_layer=[4] * layers,
        ffn_per_layer=[48] * layers,
        pooler_size=32,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=num_labels,
        pad_token_id=PAD,
    )
    model = CofiForSequenceClassification._from_config(config, attn_implementation=attention)
    randomise(model, seed)
    return model.eval()


def build_split(rows: int, seed: int, regression: bool = False) -> EncodedSplit:
    """Rows of 4 to 20 tokens. Half of their words are NO or YES, all alike, and that word is the label.

    A regression's label is the share of YES among them.
    """
    stream = np.random.Generator(np.random.PCG64(seed))
    labels = stream.random(rows) if regression else stream.permutation(np.arange(rows) % 2)
    ids, types, lengths = [], [], []
    for label in labels:
        words = stream.integers(8, VOCABULARY, size=stream.integers(2, 19))
        told = stream.random(len(words)) < 0.5
        told[0] = True
        says_yes = stream.random(len(words)) < label
        row = [CLS, *np.where(told, np.where(says_yes, YES, NO), words), SEP]
        ids.extend(row)
        types.extend(int(place > len(row) // 2) for place in range(len(row)))
        lengths.append(len(row))
    return EncodedSplit(
        input_ids=np.array(ids, dtype=np.int32),
        token_type_ids=np.array(types, dtype=np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels=labels.astype(np.float32 if regression else np.int64),
    )


def build_task(rows: int = 128, seed: int = 0, regression: bool = False) -> EncodedTask:
    """The toy task, in memory."""
    task = Task(
        name="toy",
        text_columns=("text",),
        label_column="label",
        labels=None if regression else ("no", "yes"),
        metric="pearson" if regression else "accuracy",
        metrics=("pearson", "spearman") if regression else ("accuracy", "matthews"),
        max_length=32,
    )
    sizes = {"train": rows, "selection": 64, "dev": 80}
    return EncodedTask(
        task=task,
        splits={
            name: build_split(size, 10 * seed + number, regression)
            for number, (name, size) in enumerate(sizes.items())
        },
        truncated=dict.fromkeys(sizes, 0),
        vocab_size=VOCABULARY,
        pad_token_id=PAD,
        content_hash=f"toy {rows} {seed} {regression}",
        source="made by the tests",
        directory=Path("/nowhere/toy"),
        tokenizer_directory=Path("/nowhere/toy/tokenizer"),
    )


def write_task(data: EncodedTask, directory: Path) -> EncodedTask:
    """The same task as it lies on disk, mapped."""
    (directory / "tokenizer").mkdir(parents=True)
    (directory / "tokenizer" / "vocab.txt").write_text("\n".join(f"word{i}" for i in range(VOCABULARY)))
    for name, split in data.splits.items():
        save_split(directory, name, split)
    meta = {"task": data.task.to_json(), "source": data.source, "content": data.content_hash}
    counted = {"truncated": data.truncated, "vocab_size": VOCABULARY, "pad_token_id": PAD}
    save_meta(directory, meta | counted)
    return open_encoded(directory)


def fine_tune(
    student: CofiForSequenceClassification, data: EncodedTask, learning_rate: float, epochs: float
) -> CofiForSequenceClassification:
    """Plain fine-tuning on the labels."""
    trial = TrialConfig(method="dense", epochs=epochs, learning_rate=learning_rate)
    torch.manual_seed(0)
    steps = steps_per_epoch(len(data.splits["train"].labels), trial.batch_size)
    training = Training(student, methods.load("dense")(trial, student, steps), None, data, trial)
    for _ in training.run():
        pass
    return training.student


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """See `build_model`."""
    return build_model


@pytest.fixture(scope="session")
def make_task() -> MakeTask:
    """See `build_task`."""
    return build_task


@pytest.fixture(scope="session")
def toy() -> EncodedTask:
    """The toy task, to be read only."""
    return build_task()


@pytest.fixture(scope="session")
def toy_regression() -> EncodedTask:
    """The toy regression, to be read only."""
    return build_task(regression=True)


@pytest.fixture(scope="session")
def toy_on_disk(tmp_path_factory: pytest.TempPathFactory) -> EncodedTask:
    """The toy task as compress.py opens it."""
    return write_task(build_task(), tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="session")
def make_task_on_disk() -> Callable[[int, Path], EncodedTask]:
    """Writes a toy task of so many rows to a directory."""
    return lambda rows, directory: write_task(build_task(rows), directory)


@pytest.fixture(scope="session")
def trained_state(toy: EncodedTask) -> dict[str, torch.Tensor]:
    """Weights of a 2-layer encoder that has learned the toy task."""
    return fine_tune(build_model(layers=2, seed=7), toy, learning_rate=3e-3, epochs=12).state_dict()


@pytest.fixture
def teacher(trained_state: dict[str, torch.Tensor]) -> CofiForSequenceClassification:
    """A 2-layer encoder that has learned the toy task; a fresh one for each test."""
    model = build_model(layers=2)
    model.load_state_dict(trained_state)
    return model


class StandIn:
    """Studies without Ray and without training, by the analytic stand-in of `test_study.py`."""

    def __init__(self, directory: Path) -> None:
        path = Path(__file__).with_name("test_study.py")
        spec = importlib.util.spec_from_file_location("stand_in", path)
        assert spec is not None
        assert spec.loader is not None
        self.directory, self.module = directory, importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.measure, self.storage = self.module.measure, f"sqlite:///{directory}/optuna.db"
        self.files: tuple[Any, Any] | None = None

    def rows(self) -> tuple[Any, Any]:
        """A task of the user's own, and where its rows are."""
        from cofi_tune.data.local import local_task
        from cofi_tune.data.sources import Source

        for name, rows in (("train", 60), ("dev", 20)):
            lines = [f"{i % 7} words and {i % 5} signs\t{'yes' if i % 2 else 'no'}" for i in range(rows)]
            (self.directory / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n")
        train, dev = (str(self.directory / f"{name}.tsv") for name in ("train", "dev"))
        task = local_task(train, ("text",), "label", name="signs", metric="matthews")
        return task, Source.files(train, dev)

    def run(self, name: str, evaluate: Any = None, seen: list[str] | None = None, **changes: Any) -> Any:
        """What `study.run` returns."""
        self.files = self.files or self.rows()
        run = self.module.run
        return run(self.directory, self.files, evaluate or self.measure, seen, name=name, **changes)

    def trials(self, name: str) -> Any:
        """Of a study, as Optuna has them."""
        return self.module.load(self.directory, name).trials


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """See `StandIn`."""
    return StandIn(tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="session")
def own_ray(
    tmp_path_factory: pytest.TempPathFactory, study_config: Callable[..., StudyConfig]
) -> Iterator[int]:
    """One Ray for all tests that need no more, where a shell has set another number of threads.

    Yields the CPUs of its workers.
    """
    from cofi_tune.ray_session import ray_started

    config = study_config(tmp_path_factory.mktemp("ray"), cpus_per_worker=2, workers_per_trial=0)
    with pytest.MonkeyPatch.context() as shell:
        shell.setenv("OMP_NUM_THREADS", "1")
        with ray_started(config, None):
            yield config.cpus_per_worker


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Draws a port for a server that starts in a while: below those that the system hands out meanwhile."""

    def draw() -> int:
        while True:
            port = random.SystemRandom().randrange(20_000, 32_000)
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port

    return draw


@pytest.fixture(scope="session")
def study_config() -> Callable[..., StudyConfig]:
    """A small study with an output, and what is changed of it."""

    def make(output: Path, **changes: Any) -> StudyConfig:
        usual: dict[str, Any] = {
            "name": "s",
            "task": "grammar",
            "source": {},
            "model": "tiny",
            "epochs": 1.0,
            "teacher_epochs": 1.0,
            "base_learning_rate": 1e-3,
            "workers_per_trial": 1,
            "concurrency": 1,
            "cpus_per_worker": 1,
            "gpus_per_worker": 0.0,
            "tracking_uri": "",
            "storage": "",
        }
        return StudyConfig(output=output, **usual | changes)

    return make
