"""The training loop. It yields its progress, and knows neither Ray nor MLflow nor any method by name."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cofi_tune import evaluate
from cofi_tune.config import TrialConfig
from cofi_tune.data.batches import Batch, collate, stream
from cofi_tune.data.encode import EncodedSplit, EncodedTask
from cofi_tune.methods import Method, Phase
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import Progress, Stopped

REPORTS = 20
"""Progress reports over a run, about."""
EVALUATIONS = 4
"""Evaluations on the selection rows in a phase that keeps its best weights."""


class Step(nn.Module):
    """One forward pass of student and method: what DDP wraps."""

    def __init__(self, student: CofiForSequenceClassification, method: Method, ranks: Ranks) -> None:
        super().__init__()
        self.student, self.method, self.ranks = student, method, ranks

    def forward(self, batch: Batch, teacher: Encoded | None, step: int) -> dict[str, Tensor]:
        """Named losses: this worker's share."""
        gates = self.method.before_forward(step)
        out = encode(self.student, batch, gates, self.method.uses_hidden_states)
        return self.method.losses(out, teacher, batch, step, self.ranks)


def encode(
    model: CofiForSequenceClassification, batch: Batch, gates: Gates, with_hidden_states: bool
) -> Encoded:
    """A model on a packed batch."""
    return model.encode(
        batch.ids_N, batch.types_N, batch.positions_N, batch.packing, gates, with_hidden_states
    )


class Training:
    """A run: `run` trains and yields, `student` is the model as it stands."""

    def __init__(
        self,
        student: CofiForSequenceClassification,
        method: Method,
        teacher: CofiForSequenceClassification | None,
        data: EncodedTask,
        trial: TrialConfig,
        selection: str = "selection",
        ranks: Ranks = ALONE,
    ) -> None:
        """Lay out the phases.

        Args:
            student: the dense model to train; moved to no device here.
            method: what is done to it.
            teacher: a fine-tuned model for methods that distil.
            data: the encoded task.
            trial: hyperparameters.
            selection: split that chooses the best weights.
            ranks: this worker's place; the batch is shared among all.
        """
        self.student, self.method, self.teacher = student, method, teacher
        self.data, self.trial, self.ranks = data, trial, ranks
        self.selection: EncodedSplit = data.splits[selection]
        if min(trial.batch_size, len(data.splits["train"])) < ranks.size:
            raise ValueError(f"a batch of {trial.batch_size} rows cannot be shared by {ranks.size} workers")
        self.rows = stream(data.splits["train"], trial.batch_size, trial.seed)
        self.phases = method.phases()
        self.num_steps = sum(phase.num_steps for phase in self.phases)
        self.step = 0
        self.started = time.perf_counter()

    def run(self) -> Iterator[Progress]:
        """Train through every phase.

        Raises:
            Stopped: the method gave up, or a loss is not finite.
        """
        if self.teacher is not None:
            self.teacher.eval().requires_grad_(False)
        for phase in self.phases:
            self.student = self.method.enter(phase, self.student)
            yield from self._phase(phase)
        self.student = self.method.finish(self.student)
        self.student.eval()

    def _phase(self, phase: Phase) -> Iterator[Progress]:
        self.student.train()
        module: nn.Module = Step(self.student, self.method, self.ranks)
        if self.ranks.size > 1:
            module = DistributedDataParallel(module, broadcast_buffers=False)
        optimizer = self._optimizer(phase)
        clipped = [p for g in optimizer.param_groups if g["scheduled"] for p in g["params"]]
        best = _Best() if phase.select_best else None
        losses = _Mean()
        # A multiple of the evaluations, so that these fall on reports and every mean covers as many steps.
        share = REPORTS * phase.num_steps / self.num_steps
        reports = EVALUATIONS * max(1, round(share / EVALUATIONS))
        evaluations = EVALUATIONS if best is not None else 1
        for step in range(phase.num_steps):
            _schedule(optimizer, phase, step)
            batch = collate(self.data.splits["train"], next(self.rows), self.student.device, self.ranks)
            terms = module(batch, self._teach(batch), step)
            optimizer.zero_grad(set_to_none=True)
            # DDP averages over workers, but shares of a mean are to be summed.
            (sum(terms.values()) * self.ranks.size).backward()
            nn.utils.clip_grad_norm_(clipped, self.trial.clip_norm)
            optimizer.step()
            self.method.after_step()
            losses.add(terms)
            self.step += 1
            if _due(step + 1, phase.num_steps, reports):
                due = _due(step + 1, phase.num_steps, evaluations)
                score = self._evaluate(best) if due else None
                yield self._progress(phase, step + 1, losses, optimizer, score)
        if best is not None:
            best.restore(self.student)

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        weights = [p for p in self.student.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": weights, "scheduled": True}]
        for group in self.method.parameter_groups():
            groups.append({"scheduled": False, **group})
        return torch.optim.AdamW(groups, lr=phase.learning_rate, weight_decay=0.0, fused=True)

    def _teach(self, batch: Batch) -> Encoded | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            return encode(self.teacher, batch, Gates(), self.method.uses_hidden_states)

    def _evaluate(self, best: _Best | None) -> float:
        task = self.data.task
        scores = evaluate.score(self.student, task, self.selection, self.method.evaluation_gates())
        score = scores[task.metric]
        if best is not None:
            best.offer(score, self.student)
        return score

    def _progress(
        self,
        phase: Phase,
        phase_step: int,
        losses: _Mean,
        optimizer: torch.optim.Optimizer,
        score: float | None,
    ) -> Progress:
        means = losses.take(self.ranks)
        if not all(math.isfinite(value) for value in means.values()):
            raise Stopped("non_finite", f"a loss is not finite at step {self.step}: {means}")
        status = self.method.status(phase_step)
        return Progress(
            step=self.step,
            num_steps=self.num_steps,
            phase=phase.name,
            losses=means,
            learning_rate=optimizer.param_groups[0]["lr"],
            seconds=time.perf_counter() - self.started,
            expected_sparsity=status.expected_sparsity,
            target_sparsity=status.target_sparsity,
            selection_score=score,
        )


def _schedule(optimizer: torch.optim.Optimizer, phase: Phase, step: int) -> None:
    """The phase's learning rate at `step`, for the groups that follow it."""
    warmup = phase.num_steps * phase.warmup_fraction
    factor = 1.0 if phase.schedule == "constant" else (phase.num_steps - step) / (phase.num_steps - warmup)
    if step < warmup:
        factor = (step + 1) / (warmup + 1)
    for group in optimizer.param_groups:
        if group["scheduled"]:
            group["lr"] = phase.learning_rate * factor


def _due(step: int, num_steps: int, times: int) -> bool:
    """Whether something done `times` times over `num_steps`, evenly and at the end, is due after `step`."""
    return step * times // num_steps > (step - 1) * times // num_steps


class _Mean:
    """Running means of named scalars, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, value in terms.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def take(self, ranks: Ranks) -> dict[str, float]:
        """The means since the last call; the one moment when the host waits for the device."""
        names = sorted(self.sums)
        if not names:
            return {}
        values = ranks.sum(torch.stack([self.sums[n].float() for n in names]))
        means = (values / self.count).tolist()
        self.sums, self.count = {}, 0
        return {**dict(zip(names, means, strict=True)), "loss": sum(means)}


class _Best:
    """The weights with the best selection score so far; later ones win ties."""

    def __init__(self) -> None:
        self.score = -math.inf
        self.state: dict[str, Tensor] = {}

    def offer(self, score: float, model: nn.Module) -> None:
        if score >= self.score:
            self.score = score
            self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    def restore(self, model: nn.Module) -> None:
        if self.state:
            model.load_state_dict(self.state)
