"""One configuration -> a model, scored and timed: what `prune` runs once and a search for every trial."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import cofi_tune
from cofi_tune import checkpoint, evaluate, latency, methods, predictions, teacher, teacher_cache, timed
from cofi_tune.config import Setup, TrialConfig
from cofi_tune.data.batches import steps_per_epoch
from cofi_tune.data.encode import EncodedTask, open_encoded
from cofi_tune.loop import Training
from cofi_tune.methods import Method
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.precision import resolve
from cofi_tune.process_memory import set_thresholds
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import Measurement, Progress, encoder_macs
from cofi_tune.resumable import Kept, resumable
from cofi_tune.timed import Timed, Timer
from cofi_tune.upkeep import Upkeep


def compress(
    trial: TrialConfig,
    setup: Setup,
    ranks: Ranks = ALONE,
    upkeep: Upkeep | None = None,
    timer: Timer | None = None,
) -> Iterator[Progress | Measurement]:
    """Train, cut, score, time and save; yields its progress and, on the first worker, the measurement last.

    Goes on from the last good checkpoint in the output directory, if there is one of this run.

    Args:
        trial: hyperparameters.
        setup: where data and teacher are, where results go, what to run on.
        ranks: this worker's place among those of the trial.
        upkeep: what happens between the steps; None: checkpoints as `setup` says.
        timer: times the model; None: on this run's device. It is asked for each structure once.

    Raises:
        Stopped: the run ended without a model worth measuring, with the reason.
        InvalidPoint: the configuration leaves nothing of the model.
        OSError: a checkpoint or the model cannot be written.
    """
    set_thresholds()
    upkeep = upkeep or Upkeep(setup.checkpoint_seconds)
    if setup.num_threads:
        torch.set_num_threads(setup.num_threads)
    data = open_encoded(setup.data)
    student = start_student(trial, setup, data)
    torch.manual_seed(trial.seed * 1009 + ranks.rank)
    steps = steps_per_epoch(len(data.splits["train"].labels), trial.batch_size)
    method = methods.load(trial.method)(trial, student, steps)
    kept = teacher_cache.prepare(setup, data, method, ranks, upkeep)
    # Beside the kept outputs the dense model is needed at the end alone.
    dense = None if kept.guide or not method.uses_teacher else _dense(setup)
    selection = data.selection_split(setup.selection)
    precision = resolve(setup.precision, setup.device)
    guide = kept.guide or dense
    training = Training(student, method, guide, data, trial, selection, ranks, precision, setup.shrink)
    del student  # the dense one is gone once the method has a smaller one
    own = identity(trial, setup, data)
    begins, hands_on = _links(trial, setup, own)
    yield from resumable(training, checkpoints_of(setup), own, upkeep, begins, hands_on)
    dense = dense or _dense(setup)
    logits = evaluate.predict_dev(training.student, data, ranks)
    dense_logits = kept.dev_logits or evaluate.predict_dev(dense, data, ranks)
    upkeep.beat()
    if ranks.rank == 0:
        seconds = time.perf_counter() - training.started
        scores = evaluate.dev_scores(logits, data), evaluate.dev_scores(dense_logits, data)
        dev = data.splits[data.task.dev_splits[0]]
        timer = timer or timed.timed_here
        times = timed.once(timer, training.student, dense, dev, setup, contract(data, setup, {}))
        measurement = measure(training.student, dense, data, method, setup, scores, times, seconds)
        measurement = replace(measurement, guided_by=" then ".join(training.guided_by))
        predictions.save(setup.output, data, logits, dense_logits)
        save(training.student, measurement, method, data, setup.output)
        yield measurement


def _dense(setup: Setup) -> CofiForSequenceClassification:
    """The dense model; loading it leaves the run's random streams as they are."""
    device = torch.device(setup.device)
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
        return teacher.load(setup.teacher, setup.device)


def checkpoints_of(setup: Setup) -> Path:
    """Where a run keeps its checkpoints; they may go once whoever asked for it has its measurement."""
    return setup.output / checkpoint.DIRECTORY


def identity(trial: TrialConfig, setup: Setup, data: EncodedTask) -> dict[str, Any]:
    """What makes a checkpoint this run's and no other's."""
    return {
        "trial": trial.model_dump(mode="json"),
        "data": data.content_hash,
        "tokens": data.directory.name,
        "teacher": setup.teacher.name,
        "selection": setup.selection,
        "precision": resolve(setup.precision, setup.device),
        "shrink": setup.shrink,
        "code": cofi_tune.__version__,
    }


def _links(trial: TrialConfig, setup: Setup, own: Mapping[str, Any]) -> tuple[Kept | None, Kept | None]:
    """Where the state is that a trial begins with, and where it leaves one for the next link of its chain.

    It is that of the end of pruning, not of the model that comes of it: by then the gates are folded into the
    weights, their log alphas and multipliers have no more say, and what they closed is gone for good.

    Args:
        trial: hyperparameters.
        setup: names its output, and its parent's.
        own: identity of the trial.
    """
    options = {name: value for name, value in trial.options.items() if name != "target_sparsity"}
    alike = {"batch_size", "clip_norm", "dropout", "init", "learning_rate", "method", "seed"}
    shared = {**own, "trial": {**trial.model_dump(mode="json", include=alike), "options": options}}
    begins = hands_on = None
    if trial.reached:
        if setup.parent is None:
            raise ValueError(f"a run that goes on from {trial.reached[-1]:g} needs that run's output")
        begins = Kept(setup.parent / checkpoint.LINK, {**shared, "reached": [*trial.reached]})
    if setup.hands_on:
        reached = [*trial.reached, trial.options["target_sparsity"]]
        hands_on = Kept(setup.output / checkpoint.LINK, {**shared, "reached": reached})
    return begins, hands_on


def start_student(trial: TrialConfig, setup: Setup, data: EncodedTask) -> CofiForSequenceClassification:
    """The dense student: the teacher's weights, or the pretrained ones."""
    if trial.init == "teacher":
        student = teacher.load(setup.teacher, setup.device)
    elif setup.pretrained is None:
        raise ValueError("init 'pretrained' needs a model to start from (--model)")
    else:
        student = teacher.new_model(data, setup.pretrained, setup.model_seed).to(setup.device)
    if trial.dropout is not None:
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = trial.dropout
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = trial.dropout
        for rate in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            setattr(student.config, rate, trial.dropout)  # the cut model is built from it
    return student


def measure(
    model: CofiForSequenceClassification,
    dense: CofiForSequenceClassification,
    data: EncodedTask,
    method: Method,
    setup: Setup,
    scores_of: tuple[dict[str, float], dict[str, float]],
    times: Timed,
    seconds: float,
) -> Measurement:
    """Put all figures of what is shipped together.

    Args:
        model: what is shipped.
        dense: the dense model.
        data: whose dev rows were scored and timed.
        method: what made the model.
        setup: of the run.
        scores_of: the scores of both.
        times: its own, or those of a model of its structure.
        seconds: of training.
    """
    task = data.task
    scores, dense_scores = scores_of
    dev = data.splits[task.dev_splits[0]]
    objective = next(t for t in times.latencies if t.scenario == setup.scenario)
    status = method.status(0)
    mean_tokens = max(1, round(float(dev.lengths.mean())))
    kept, whole = (encoder_parameters_of(m) for m in (model, dense))
    return Measurement(
        score=scores[task.metric],
        speedup=objective.speedup,
        scores=scores,
        teacher_scores=dense_scores,
        latencies=times.latencies,
        sparsity=1 - kept / whole,
        model_sparsity=1 - model.num_parameters() / dense.num_parameters(),
        num_parameters=model.num_parameters(),
        dense_num_parameters=dense.num_parameters(),
        macs=_macs(model, mean_tokens),
        dense_macs=_macs(dense, mean_tokens),
        mean_tokens=mean_tokens,
        expected_sparsity=status.expected_sparsity,
        target_sparsity=status.target_sparsity,
        seconds=seconds,
        contract=contract(data, setup, times.made_on),
        timed_as=times.timed_as,
    )


def encoder_parameters_of(model: CofiForSequenceClassification) -> int:
    """Weights and biases of the layers' linear maps, counted on the model."""
    linears = (m for layer in model.layers for m in layer.modules() if isinstance(m, torch.nn.Linear))
    return sum(p.numel() for linear in linears for p in linear.parameters())


def contract(data: EncodedTask, setup: Setup, machine: dict[str, Any]) -> dict[str, Any]:
    """What a measurement is comparable under.

    Args:
        data: what was scored and timed.
        setup: of the run.
        machine: what `made_on` says where it was timed.
    """
    return {
        **machine,
        # Not the precision of training: a model is scored, timed and shipped in fp32.
        "task": data.task.name,
        "data": data.content_hash,
        "teacher": setup.teacher.name,
        "selection": setup.selection,
        "scenario": setup.scenario,
        "mean_tokens": round(float(data.splits[data.task.dev_splits[0]].lengths.mean()), 1),
        "throughput_rows": latency.THROUGHPUT_ROWS,
        "timed": "search",
        "alone": "no" if setup.timing == "crowd" else "yes",
    }


def save(
    model: CofiForSequenceClassification,
    measurement: Measurement,
    method: Method,
    data: EncodedTask,
    output: Path,
) -> None:
    """Write `model/` (loadable), `plan.json` and `measurement.json`."""
    output.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(output / "model")
    shutil.copytree(data.tokenizer_directory, output / "model", dirs_exist_ok=True)
    if method.plan is not None:
        (output / "plan.json").write_text(method.plan.to_json())
    (output / "measurement.json").write_text(json.dumps(measurement.to_json(), indent=2))


def _macs(model: CofiForSequenceClassification, num_tokens: int) -> int:
    c = model.config
    layers = list(zip(c.heads_per_layer or [], c.ffn_per_layer or [], strict=True))
    return encoder_macs(num_tokens, c.hidden_size, c.head_size, layers)
