"""What trials will cost, from a handful of real training steps, evaluations and measurements made here.

Everything is timed on the model as it is, not fine-tuned, and on real rows. For recovery the model is cut
to the highest target: equal shares of heads and FFN units go from every layer, while hidden units stay, as
nearly all of them do in training (the reference keeps 764 of 768 at a sparsity of 95 %). A step between the
dense size and that one is taken to lie on the line between the two.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from cofi_tune import evaluate, latency, methods, pace, teacher
from cofi_tune.components.gates import LearnedGates
from cofi_tune.components.hard_concrete import LOG_ALPHA_LIMIT, clamp_
from cofi_tune.config import Precision, StudyConfig, TrialConfig
from cofi_tune.data.batches import steps_per_epoch
from cofi_tune.data.encode import EncodedSplit, EncodedTask
from cofi_tune.loop import Training
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.precision import resolve
from cofi_tune.records import SCENARIOS, Progress, Stopped
from cofi_tune.step import Guide
from cofi_tune.teacher_files import Part
from cofi_tune.teacher_outputs import as_guide, train_parts

PRUNE_STEPS, LAST_STEPS = 5, 8
"""Steps that are run. The first of a phase is not counted, nor one with an evaluation in it."""
SHORT_OPTIONS = {"recover_fraction": LAST_STEPS / (PRUNE_STEPS + LAST_STEPS), "mask_learning_rate": 1e-6}
"""Of the run that is timed, for methods that have them: gates stay where they are put."""
ENOUGH_SECONDS, MOST_RUNS = 5.0, 5
"""Short runs are repeated until they took that long, for a median that means something with small models."""
EVALUATED_ROWS, SELECTION_ROWS = 256, 32
TEACHER, TARGET = "teacher", "target_sparsity"


@dataclass(frozen=True)
class Timing:
    """Seconds of the parts of a trial."""

    steps: Mapping[str, Sequence[float]]
    """Seconds of single steps: by phase, and of the teacher's training."""
    batch_size: int
    target_sparsity: float | None
    """Of the cut model that recovery and evaluation were timed on; None: the method cuts nothing."""
    outputs_bytes: int
    """Of the teacher's outputs, with which the steps were timed; 0: the teacher ran in each."""
    dense_row: float
    """To evaluate a row with the dense model."""
    small_row: float
    """To evaluate one with the cut model."""
    measurement: float
    """To time the cut model beside the dense one, in every scenario."""
    model_bytes: int
    """Weights of the cut model."""
    teacher_bytes: int

    def step(self, phase: str) -> float:
        """Median seconds of a step; of pruning, which takes as much at least, for a phase not timed."""
        return median(self.steps.get(phase) or next(iter(self.steps.values())))

    def between(self, dense: float, cut: float, sparsity: float) -> float:
        """What something takes at a sparsity, from what it takes dense and with the cut model."""
        if not self.target_sparsity:
            return dense
        return dense + (cut - dense) * min(1.0, sparsity / self.target_sparsity)


@dataclass(frozen=True)
class Cost:
    """Of one run."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What was timed, and what follows."""

    timing: Timing
    trials: tuple[Cost, ...]
    teacher: Cost | None
    """None: it is given."""
    outputs: float
    """Seconds to make the teacher's outputs, once."""


def estimate(config: StudyConfig, data: EncodedTask, trials: Sequence[TrialConfig]) -> Estimate:
    """The cost of trials. The first one's batch size and method are timed, at the highest of all targets.

    Args:
        config: of the study.
        data: the encoded task.
        trials: some that its space proposes.

    Raises:
        ValueError: the model cannot be loaded, or cannot take a step.
    """
    if config.device == "cpu":
        torch.set_num_threads(config.cpus_per_worker)
    dense = teacher.new_model(data, config.teacher or config.model, config.seed).to(config.device).eval()
    try:
        timing = _timed(config, data, _deepest(trials), dense)
    except Stopped as error:
        raise ValueError(f"the steps that were to be timed broke off: {error}") from error
    costs = tuple(_of_trial(timing, config, data, trial, dense) for trial in trials)
    outputs = timing.dense_row * len(data.splits["train"]) if timing.outputs_bytes else 0.0
    return Estimate(timing, costs, None if config.teacher else _of_teacher(timing, config, data), outputs)


def _deepest(trials: Sequence[TrialConfig]) -> TrialConfig:
    """The first, with the highest target of all."""
    first = trials[0]
    if TARGET not in first.options:
        return first
    target = max(trial.options.get(TARGET, 0.0) for trial in trials)
    return first.model_copy(update={"options": {**first.options, TARGET: target}})


def _timed(
    config: StudyConfig, data: EncodedTask, trial: TrialConfig, dense: CofiForSequenceClassification
) -> Timing:
    precision = resolve(config.precision, config.device)
    parts = _kept_parts(config, data, trial, dense)
    guide = as_guide({part.name: np.zeros(part.shape, part.dtype) for part in parts}) if parts else dense
    small, steps = _short_runs(data, trial, dense, guide, precision)
    as_teacher = trial.model_copy(update={"method": "dense", "options": {}})
    _, plain = _short_runs(data, as_teacher, dense, dense, precision)
    dev = data.splits[data.task.dev_splits[0]]
    dense_row, small_row = (_seconds_per_row(model, _first(dev, EVALUATED_ROWS)) for model in (dense, small))
    start = time.perf_counter()
    latency.measure(small, dense, dev, SCENARIOS if config.reference_protocol else SCENARIOS[:2])
    return Timing(
        steps={**steps, TEACHER: plain["finetune"]},
        batch_size=trial.batch_size,
        target_sparsity=trial.options.get(TARGET),
        outputs_bytes=sum(part.num_bytes for part in parts),
        dense_row=dense_row,
        small_row=small_row,
        measurement=time.perf_counter() - start,
        model_bytes=_bytes(small),
        teacher_bytes=_bytes(dense),
    )


def _kept_parts(
    config: StudyConfig, data: EncodedTask, trial: TrialConfig, dense: CofiForSequenceClassification
) -> list[Part]:
    """What trials will find of the teacher's outputs; none: it runs in every step.

    What stands in such files costs a step nothing: zeros are as good to time it.
    """
    per_epoch = steps_per_epoch(len(data.splits["train"]), trial.batch_size)
    method = methods.load(trial.method)(trial, dense, per_epoch)
    if not method.uses_teacher:
        return []
    parts = train_parts(dense.config, data.splits["train"], method.teacher_layers)
    return parts if sum(part.num_bytes for part in parts) <= config.teacher_cache_bytes else []


def _short_runs(
    data: EncodedTask,
    trial: TrialConfig,
    dense: CofiForSequenceClassification,
    teaching: Guide,
    precision: Precision,
) -> tuple[CofiForSequenceClassification, dict[str, list[float]]]:
    """The model that a short run ends with, and seconds of steps by phase."""
    start = time.perf_counter()
    pooled: dict[str, list[float]] = {}
    for _ in range(MOST_RUNS):
        small, more = _short_run(data, trial, dense, teaching, precision)
        pooled = {phase: pooled.get(phase, []) + each for phase, each in more.items()}
        if time.perf_counter() - start > ENOUGH_SECONDS:
            break
    return small, pooled


def _short_run(
    data: EncodedTask,
    trial: TrialConfig,
    dense: CofiForSequenceClassification,
    teaching: Guide,
    precision: Precision,
) -> tuple[CofiForSequenceClassification, dict[str, list[float]]]:
    """Every phase for a few steps: the model at its end, and seconds of steps."""
    per_epoch = steps_per_epoch(len(data.splits["train"]), trial.batch_size)
    known = methods.load(trial.method).Config.model_fields
    options = {name: value for name, value in SHORT_OPTIONS.items() if name in known}
    num_steps = LAST_STEPS + (PRUNE_STEPS if options else 0)
    short = trial.model_copy(
        update={
            "epochs": num_steps / per_epoch,
            "finetune_epochs": 0.0,
            "options": {**trial.options, **options},
        }
    )
    student = copy.deepcopy(dense).requires_grad_(True)
    method = methods.load(short.method)(short, student, per_epoch)
    gates = getattr(method, "gates", None)
    if isinstance(gates, LearnedGates):
        _close(gates, short.options[TARGET])
    few = replace(data, splits={**data.splits, "few": _first(data.splits["selection"], SELECTION_ROWS)})
    guide = teaching if method.uses_teacher else None
    training = Training(student, method, guide, few, short, "few", precision=precision)
    seconds: dict[str, list[float]] = {}
    before: Progress | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a run that is too short to prune anything
        for progress in training.run():
            timed = seconds.setdefault(progress.phase, [])
            if before is not None and before.phase == progress.phase and progress.selection_score is None:
                timed.append((progress.seconds - before.seconds) / (progress.step - before.step))
            before = progress
    return training.student, seconds


def _close(gates: LearnedGates, target_sparsity: float) -> None:
    """Put the gates where pruning would: equal shares of every layer's heads and FFN units closed."""
    fine = [unit for unit in ("head", "intermediate") if unit in gates.log_alpha] or [*gates.log_alpha]
    drawn = {unit: torch.randn_like(gates.log_alpha[unit]) * 2 for unit in fine}
    low, high = -3 * LOG_ALPHA_LIMIT, 3 * LOG_ALPHA_LIMIT
    with torch.no_grad():
        for _ in range(24):
            shift = (low + high) / 2
            for unit, values in drawn.items():
                gates.log_alpha[unit].copy_(values - shift)
                clamp_(gates.log_alpha[unit])
            too_few = float(gates.expected_sparsity()) < target_sparsity
            low, high = (shift, high) if too_few else (low, shift)


def _of_trial(
    timing: Timing,
    config: StudyConfig,
    data: EncodedTask,
    trial: TrialConfig,
    dense: CofiForSequenceClassification,
) -> Cost:
    per_epoch = steps_per_epoch(len(data.splits["train"]), trial.batch_size)
    phases = methods.load(trial.method)(trial, dense, per_epoch).phases()
    selection = len(data.splits[data.selection_split(config.selection)])
    dev = sum(len(data.splits[name]) for name in data.task.dev_splits)
    # A link begins where its parent ended; pruning by itself shrinks the student too late to count on.
    before = trial.reached[-1] if trial.reached and config.shrink else 0.0
    after = trial.options.get(TARGET, 0.0)
    scored = dev if timing.outputs_bytes == 0 else 0
    seconds = timing.measurement + scored * timing.dense_row
    seconds += dev * timing.between(timing.dense_row, timing.small_row, after)
    first, last = timing.step(phases[0].name), timing.step(phases[-1].name)
    for phase in phases:
        sparsity, dense_step = (after, first) if phase is phases[-1] else (before, timing.step(phase.name))
        step = timing.between(dense_step, last, sparsity)
        seconds += step * trial.batch_size / timing.batch_size * phase.num_steps
        row = timing.between(timing.dense_row, timing.small_row, sparsity)
        if phase.select_best:
            seconds += row * selection * pace.evaluations(phase.num_steps * trial.batch_size, selection)
    return Cost(sum(phase.num_steps for phase in phases), seconds)


def _of_teacher(timing: Timing, config: StudyConfig, data: EncodedTask) -> Cost:
    batch_size = TrialConfig().batch_size
    steps = round(config.teacher_epochs * steps_per_epoch(len(data.splits["train"]), batch_size))
    selection = len(data.splits[data.selection_split(config.selection)])
    rows = selection * pace.evaluations(steps * batch_size, selection)
    step = timing.step(TEACHER) * batch_size / timing.batch_size
    return Cost(steps, step * steps + rows * timing.dense_row)


def _seconds_per_row(model: CofiForSequenceClassification, split: EncodedSplit) -> float:
    evaluate.predict(model, _first(split, SELECTION_ROWS))
    start = time.perf_counter()
    evaluate.predict(model, split)
    return (time.perf_counter() - start) / len(split)


def _first(split: EncodedSplit, rows: int) -> EncodedSplit:
    rows = min(rows, len(split))
    tokens = split.offsets[rows]
    ids, types = split.input_ids[:tokens], split.token_type_ids[:tokens]
    return EncodedSplit(ids, types, split.offsets[: rows + 1], split.labels[:rows])


def _bytes(model: CofiForSequenceClassification) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())
