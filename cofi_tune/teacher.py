"""The teacher: fine-tuned once for a task, a model and a seed; found again by what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from cofi_tune import checkpoint, evaluate, methods
from cofi_tune.components import pretrained
from cofi_tune.config import Precision, TrialConfig
from cofi_tune.data.batches import steps_per_epoch
from cofi_tune.data.encode import EncodedTask
from cofi_tune.data.task import Task
from cofi_tune.lock import exclusive
from cofi_tune.loop import Training
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.precision import resolve
from cofi_tune.process_memory import free_memory, set_thresholds
from cofi_tune.records import Progress
from cofi_tune.resumable import resumable
from cofi_tune.upkeep import Upkeep

PRETRAINED_LEARNING_RATE = 2e-5
"""The reference's (run_FT.sh), batch 32."""
RANDOM_LEARNING_RATE = 3e-4
"""For small models from random weights, which learn nothing at 2e-5."""
RANDOM_WARMUP_FRACTION = 0.1
PERMUTATION_MARGIN = 0.1
"""Accuracy by which another order of labels must beat the given one to be called the teacher's own."""

OnProgress = Callable[[Progress], None]


def base_learning_rate(model: str) -> float:
    """The rate at which a teacher of this kind is fine-tuned; search spaces count in units of it."""
    return RANDOM_LEARNING_RATE if pretrained.is_random(model) else PRETRAINED_LEARNING_RATE


def prepare(
    data: EncodedTask,
    model: str,
    output: Path,
    *,
    epochs: float,
    given: str | None = None,
    seed: int = 0,
    selection: str = "selection",
    device: str = "cpu",
    precision: Precision = "auto",
    on_progress: OnProgress = lambda progress: None,
    upkeep: Upkeep | None = None,
) -> Path:
    """The directory of the teacher for this task: given, found again, or fine-tuned now.

    Args:
        data: the encoded task.
        model: a size with random weights, a directory or a hub id.
        output: where teachers are kept (`<output>/teachers/<task>-<hash>`).
        epochs: passes over the training rows.
        given: a fine-tuned model to use instead (`--teacher`), see `adopt`.
        seed: of initialisation, order and dropout.
        selection: the split that chooses its best weights.
        device: what to train on.
        precision: of its training.
        on_progress: called at every report of the loop.
        upkeep: what happens between the steps.

    Raises:
        Stopped: the training failed, or was interrupted; the same call goes on with it.
    """
    if given is not None:
        return adopt(data, given, output, selection)
    trial = TrialConfig(
        method="dense",
        options={"warmup_fraction": RANDOM_WARMUP_FRACTION} if pretrained.is_random(model) else {},
        epochs=float(epochs),
        learning_rate=base_learning_rate(model),
        seed=seed,
    )
    precision = resolve(precision, device)
    made_from = {
        "data": data.content_hash,
        "tokens": data.directory.name,
        "model": _fingerprint(model),
        "trial": trial.model_dump(),
        "selection": selection,
        "precision": precision,
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]
    directory = output / "teachers" / f"{data.task.name}-{digest}"
    if directory.is_dir():
        return directory
    # Another search may be at it: whoever comes second finds it made.
    with exclusive(directory.with_name(f".{directory.name}.lock"), waiting=_waiting):
        if not directory.is_dir():
            set_thresholds()
            student = new_model(data, model, seed).to(device)
            torch.manual_seed(seed)
            steps = steps_per_epoch(len(data.splits["train"].labels), trial.batch_size)
            method = methods.load(trial.method)(trial, student, steps)
            training = Training(student, method, None, data, trial, selection, precision=precision)
            checkpoints = directory.with_name(f".{directory.name}.{checkpoint.DIRECTORY}")
            for progress in resumable(training, checkpoints, made_from, upkeep or Upkeep()):
                on_progress(progress)
            _save(training.student, data, directory, made_from)
            checkpoint.discard(checkpoints)
            del student, method, training
            free_memory()  # trials may follow in this process
    return directory


def adopt(data: EncodedTask, source: str, output: Path, selection: str = "selection") -> Path:
    """A teacher that the user gives (`--teacher`): checked, its labels put in the task's order, kept.

    Raises:
        ValueError: it has another number of labels, other label names, or behaves as if its labels were
            in another order.
    """
    digest = hashlib.sha256(f"{_fingerprint(source)} {data.directory.name}".encode()).hexdigest()[:16]
    directory = output / "teachers" / f"{data.task.name}-given-{digest}"
    if directory.is_dir():
        return directory
    if pretrained.is_random(source) or not pretrained.has_head(source):
        raise ValueError(f"--teacher {source}: it has no classifier; give a model fine-tuned on the task")
    num_labels = pretrained.num_labels(source)
    if num_labels != data.task.num_labels:
        raise ValueError(
            f"--teacher {source}: it has {num_labels} labels, {data.task.name} has {data.task.num_labels}"
        )
    model = pretrained.load(source, data.task.num_labels, data.vocab_size)
    order = label_order(data.task, pretrained.label_names(source))
    with torch.no_grad():
        model.classifier.weight.copy_(model.classifier.weight[order].clone())
        model.classifier.bias.copy_(model.classifier.bias[order].clone())
    check_behaviour(model, data, selection, source)
    _name_labels(model, data.task)
    _save(model, data, directory, {"given": source})
    return directory


def label_order(task: Task, names: tuple[str, ...] | None) -> list[int]:
    """For every label of the task, in order, its row in the teacher's classifier.

    Args:
        task: whose labels count.
        names: the teacher's own names; None or generic ones (`LABEL_0`) are taken to be in order.

    Raises:
        ValueError: names that are not the task's.
    """
    identity = list(range(task.num_labels))
    if task.labels is None or names is None or all(n.upper().startswith("LABEL_") for n in names):
        return identity

    def plain(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    theirs, ours = [plain(n) for n in names], [plain(n) for n in task.labels]
    if sorted(theirs) != sorted(ours):
        raise ValueError(
            f"the teacher's labels are {', '.join(names)}; {task.name} has {', '.join(task.labels)}. "
            "Give a teacher of this task, or rename id2label in its config.json"
        )
    return [theirs.index(name) for name in ours]


def check_behaviour(
    model: CofiForSequenceClassification, data: EncodedTask, selection: str, source: str
) -> None:
    """Refuse a teacher that would be much better with its labels in another order."""
    if data.task.is_regression:
        return
    split = data.splits[selection]
    predicted = evaluate.predict(model, split).argmax(1)
    labels = np.asarray(split.labels)
    share = np.zeros((data.task.num_labels, data.task.num_labels))
    np.add.at(share, (predicted, labels), 1 / len(labels))
    # The best assignment of labels to outputs; trying every order would never end for a dozen of them.
    order = linear_sum_assignment(share, maximize=True)[1]
    given, best = share.trace(), share[np.arange(len(order)), order].sum()
    if best > given + PERMUTATION_MARGIN:
        raise ValueError(
            f"--teacher {source}: accuracy {given:.3f}, but {best:.3f} with its labels in the "
            f"order {tuple(order.tolist())}: name them (id2label in its config.json)"
        )


def new_model(data: EncodedTask, model: str, seed: int) -> CofiForSequenceClassification:
    """A dense model for this task, its labels named."""
    fresh = pretrained.load(
        model, data.task.num_labels, data.vocab_size, seed, pad_token_id=data.pad_token_id
    )
    _name_labels(fresh, data.task)
    return fresh


def load(directory: Path, device: str = "cpu") -> CofiForSequenceClassification:
    """A saved teacher, ready to teach."""
    model: CofiForSequenceClassification = CofiForSequenceClassification.from_pretrained(directory)
    return model.to(device).eval()


def _waiting() -> None:
    warnings.warn("another search is fine-tuning this teacher; waiting for it", stacklevel=3)


def _name_labels(model: CofiForSequenceClassification, task: Task) -> None:
    if task.labels is None:
        model.config.problem_type = "regression"
        return
    model.config.id2label = dict(enumerate(task.labels))
    model.config.label2id = {name: index for index, name in enumerate(task.labels)}


def _save(
    model: CofiForSequenceClassification, data: EncodedTask, directory: Path, made_from: object
) -> None:
    """Written beside and renamed: a directory of this name is whole."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
    model.save_pretrained(beside)
    shutil.copytree(data.tokenizer_directory, beside, dirs_exist_ok=True)
    (beside / "made_from.json").write_text(json.dumps(made_from, indent=2))
    try:
        os.replace(beside, directory)
    except OSError:
        if not directory.is_dir():
            raise
        shutil.rmtree(beside)


def _fingerprint(model: str) -> str:
    """Names random sizes by name, checkpoints by their bytes."""
    if pretrained.is_random(model):
        return model
    digest = hashlib.sha256()
    directory = pretrained.find(model)
    for path in (
        sorted(directory.glob("*.safetensors"))
        + sorted(directory.glob("*.bin"))
        + [directory / "config.json"]
    ):
        if path.exists():
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
