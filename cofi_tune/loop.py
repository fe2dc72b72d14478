"""The training loop. It yields its progress, and knows neither Ray nor MLflow nor any method by name."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cofi_tune import bookkeeping, evaluate
from cofi_tune.bookkeeping import Best, Mean
from cofi_tune.checkpoint import State
from cofi_tune.config import Precision, TrialConfig
from cofi_tune.data.batches import Batch, RowStream, collate
from cofi_tune.data.encode import EncodedSplit, EncodedTask
from cofi_tune.methods import Method, Phase
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification, Encoded, Gates
from cofi_tune.precision import computing
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import Progress, Stopped

REPORTS = 20
"""Progress reports over a run, about."""
EVALUATIONS = 4
"""Evaluations on the selection rows in a phase that keeps its best weights."""


class Step(nn.Module):
    """One forward pass of student and method: what DDP wraps."""

    def __init__(
        self,
        student: CofiForSequenceClassification,
        method: Method,
        ranks: Ranks,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.student, self.method, self.ranks, self.precision = student, method, ranks, precision

    def forward(
        self, batch: Batch, teacher: Encoded | None, step: int, again: bool = False
    ) -> dict[str, Tensor]:
        """Named losses of a share of a batch; `again`: not the first of this step."""
        gates = self.method.before_forward(step, again)
        out = encode(self.student, batch, gates, self.method.uses_hidden_states, self.precision)
        # Of the losses, too, only products of matrices (a transform of states) are not in fp32.
        with computing(self.precision, self.student.device):
            return self.method.losses(out, teacher, batch, step, self.ranks)


def encode(
    model: CofiForSequenceClassification,
    batch: Batch,
    gates: Gates,
    with_hidden_states: bool,
    precision: Precision = "fp32",
) -> Encoded:
    """A model on a packed batch; logits and states are fp32 whatever the precision of its products."""
    with computing(precision, model.device):
        out = model.encode(
            batch.ids_N, batch.types_N, batch.positions_N, batch.packing, gates, with_hidden_states
        )
    return out if precision == "fp32" else out._replace(logits_BC=out.logits_BC.float())


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
        precision: Precision = "fp32",
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
            precision: of forward passes, as `precision.resolve` gives it.
        """
        self.student, self.method, self.teacher = student, method, teacher
        self.data, self.trial, self.ranks, self.precision = data, trial, ranks, precision
        self.selection: EncodedSplit = data.splits[selection]
        if min(trial.batch_size, len(data.splits["train"])) < ranks.shares:
            raise ValueError(f"a batch of {trial.batch_size} rows cannot be shared by {ranks.shares} workers")
        self.rows = RowStream(data.splits["train"], trial.batch_size, trial.seed)
        self.phases = method.phases()
        self.num_steps = sum(phase.num_steps for phase in self.phases)
        self.step = 0
        self.started = time.perf_counter()
        self._phase_number, self._phase_step = 0, 0
        self._losses = Mean()
        self._best: Best | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._restored: State | None = None

    def run(self) -> Iterator[Progress]:
        """Train through every phase; yields the reports.

        Raises:
            Stopped: the method gave up, or a loss is not finite.
        """
        return (progress for progress in self.steps() if progress is not None)

    def steps(self) -> Iterator[Progress | None]:
        """Train through every phase; yields after every step: a report where one is due, else None.

        Whenever it has yielded, `state` is whole.

        Raises:
            Stopped: the method gave up, or a loss is not finite.
        """
        if self.teacher is not None:
            self.teacher.eval().requires_grad_(False)
        for number in range(self._phase_number, len(self.phases)):
            phase = self.phases[number]
            if self._restored is None:
                self.student = self.method.enter(phase, self.student)
                self._phase_number, self._phase_step = number, 0
                self._best = Best() if phase.select_best else None
            yield from self._phase(phase)
        self.student = self.method.finish(self.student)
        self.student.eval()

    def state(self) -> State:
        """All that a run of this configuration needs to go on from here; asked of every worker at once."""
        assert self._optimizer is not None
        best, device = self._best or Best(), self.student.device
        method_tensors, method_values = self.method.state()
        names = sorted(self._losses.sums)
        own = bookkeeping.random_state(device)
        if names:
            own["losses"] = torch.stack([self._losses.sums[n].float() for n in names]).cpu()
        tensors = bookkeeping.named(
            student=self.student.state_dict(),
            method=method_tensors,
            optimizer=bookkeeping.optimizer_state(self._optimizer),
            best=best.weights,
        )
        for name, tensor in own.items():
            for rank, theirs in enumerate(self.ranks.gather(tensor, device)):
                tensors[f"rank{rank}/{name}"] = theirs
        values = {
            "phase": self._phase_number,
            "phase_step": self._phase_step,
            "rows": self.rows.state(),
            "seconds": time.perf_counter() - self.started,
            "best_score": best.score,
            "losses": [names, self._losses.count],
            "student": self.student.config.to_dict(),
            "method": method_values,
        }
        return State(self.step, tensors, values)

    def restore(self, state: State) -> None:
        """Go on, at the next `steps`, where `state` was taken; the workers must be as many as then."""
        values, device = state.values, self.student.device
        self.step = state.step
        self.started = time.perf_counter() - values["seconds"]
        self._phase_number, self._phase_step = values["phase"], values["phase_step"]
        self.rows.restore(values["rows"])
        self.student = CofiForSequenceClassification(CofiConfig.from_dict(values["student"])).to(device)
        self.student.load_state_dict(bookkeeping.under("student", state.tensors))
        phase = self.phases[self._phase_number]
        self.method.restore(phase, self.student, bookkeeping.under("method", state.tensors), values["method"])
        if phase.select_best:
            self._best = Best()
            self._best.score = values["best_score"]
            weights = bookkeeping.under("best", state.tensors)
            self._best.weights = {name: tensor.to(device) for name, tensor in weights.items()}
        own = bookkeeping.under(f"rank{self.ranks.rank}", state.tensors)
        names, self._losses.count = values["losses"]
        if names:
            self._losses.sums = dict(zip(names, own["losses"].to(device).unbind(), strict=True))
        self._restored = state

    def _phase(self, phase: Phase) -> Iterator[Progress | None]:
        self.student.train()
        module: nn.Module = Step(self.student, self.method, self.ranks, self.precision)
        if self.ranks.size > 1:
            module = DistributedDataParallel(module, broadcast_buffers=False)
        self._optimizer = self._new_optimizer(phase)
        if self._restored is not None:
            state = self._restored.tensors
            bookkeeping.restore_optimizer(self._optimizer, bookkeeping.under("optimizer", state))
            # Last, since making a model draws random weights.
            own = bookkeeping.under(f"rank{self.ranks.rank}", state)
            bookkeeping.restore_random(own, self.student.device)
            self._restored = None
        # A multiple of the evaluations, so that these fall on reports and every mean covers as many steps.
        share = REPORTS * phase.num_steps / self.num_steps
        reports = EVALUATIONS * max(1, round(share / EVALUATIONS))
        evaluations = EVALUATIONS if phase.select_best else 1
        while self._phase_step < phase.num_steps:
            self._train(module, phase)
            report = None
            if _due(self._phase_step, phase.num_steps, reports):
                due = _due(self._phase_step, phase.num_steps, evaluations)
                report = self._report(phase, self._evaluate() if due else None)
            yield report
        if self._best is not None:
            self._best.restore(self.student)

    def _train(self, module: nn.Module, phase: Phase) -> None:
        """One step, in as many parts as `ranks` says."""
        optimizer, parts = self._optimizer, self.ranks.parts
        assert optimizer is not None
        _schedule(optimizer, phase, self._phase_step)
        rows = next(self.rows)
        optimizer.zero_grad(set_to_none=True)
        for part in range(parts):
            batch = collate(self.data.splits["train"], rows, self.student.device, self.ranks, part)
            # Gradients travel once a step.
            last = part == parts - 1 or not isinstance(module, DistributedDataParallel)
            with contextlib.nullcontext() if last else module.no_sync():  # type: ignore[operator]
                terms = module(batch, self._teach(batch), self._phase_step, part > 0)
                # DDP averages over workers, but shares of a mean are to be summed.
                (sum(terms.values()) * self.ranks.size).backward()
            self._losses.add(terms)
        clipped = [p for g in optimizer.param_groups if g["scheduled"] for p in g["params"]]
        nn.utils.clip_grad_norm_(clipped, self.trial.clip_norm)
        optimizer.step()
        self.method.after_step()
        self._losses.count += 1
        self.step += 1
        self._phase_step += 1

    def _new_optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        weights = [p for p in self.student.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": weights, "scheduled": True}]
        for group in self.method.parameter_groups():
            groups.append({"scheduled": False, **group})
        return torch.optim.AdamW(groups, lr=phase.learning_rate, weight_decay=0.0, fused=True)

    def _teach(self, batch: Batch) -> Encoded | None:
        if self.teacher is None:
            return None
        with torch.no_grad():
            return encode(self.teacher, batch, Gates(), self.method.uses_hidden_states, self.precision)

    def _evaluate(self) -> float:
        task = self.data.task
        gates = self.method.evaluation_gates()
        with computing(self.precision, self.student.device):
            score = evaluate.score(self.student, task, self.selection, gates, self.ranks)[task.metric]
        if self._best is not None:
            self._best.offer(score, self.student)
        return score

    def _report(self, phase: Phase, score: float | None) -> Progress:
        assert self._optimizer is not None
        means = self._losses.take(self.ranks)
        if not all(math.isfinite(value) for value in means.values()):
            raise Stopped("non_finite", f"a loss is not finite at step {self.step}: {means}")
        status = self.method.status(self._phase_step)
        self.method.check(status, self._phase_step)
        return Progress(
            step=self.step,
            num_steps=self.num_steps,
            phase=phase.name,
            losses=means,
            learning_rate=self._optimizer.param_groups[0]["lr"],
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
