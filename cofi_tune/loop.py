"""The training loop. It yields its progress, and knows neither Ray nor MLflow nor any method by name."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cofi_tune import bookkeeping, evaluate
from cofi_tune.bookkeeping import Best, Mean
from cofi_tune.checkpoint import State
from cofi_tune.config import Precision, TrialConfig
from cofi_tune.data.batches import Batch, RowStream, collate
from cofi_tune.data.encode import EncodedSplit, EncodedTask
from cofi_tune.methods import Method, Phase
from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification, Encoded
from cofi_tune.pace import EVALUATIONS, due, evaluations, schedule
from cofi_tune.precision import computing
from cofi_tune.process_memory import resident_mib, without_onednn
from cofi_tune.ranks import ALONE, Ranks
from cofi_tune.records import Progress, Stopped
from cofi_tune.step import Guide, LiveTeacher, Step

REPORTS = 20
"""Progress reports over a run, about."""
LOOKS = 40
"""How often a method is asked for a smaller student in a phase."""


class Training:
    """A run: `run` trains and yields, `student` is the model as it stands."""

    def __init__(
        self,
        student: CofiForSequenceClassification,
        method: Method,
        teacher: CofiForSequenceClassification | Guide | None,
        data: EncodedTask,
        trial: TrialConfig,
        selection: str = "selection",
        ranks: Ranks = ALONE,
        precision: Precision = "fp32",
        shrink: bool = True,
    ) -> None:
        """Lay out the phases.

        Args:
            student: the dense model to train; moved to no device here.
            method: what is done to it.
            teacher: a fine-tuned model for methods that distil, or what stands in its place.
            data: the encoded task.
            trial: hyperparameters.
            selection: split that chooses the best weights.
            ranks: this worker's place; the batch is shared among all.
            precision: of forward passes, as `precision.resolve` gives it.
            shrink: whether the student may become smaller within a phase.
        """
        if isinstance(teacher, CofiForSequenceClassification):
            teacher = LiveTeacher(teacher, method.uses_hidden_states, precision)
        self.student, self.method, self.guide = student, method, teacher
        self.guided_by = [] if teacher is None else [teacher.kind]
        """Kinds of guides, one after the other: a run that is resumed may have had another one."""
        self.data, self.trial, self.ranks = data, trial, ranks
        self.precision, self.shrink = precision, shrink
        self.selection: EncodedSplit = data.splits[selection]
        if min(trial.batch_size, len(data.splits["train"])) < ranks.shares:
            raise ValueError(f"a batch of {trial.batch_size} rows cannot be shared by {ranks.shares} workers")
        self.rows = RowStream(data.splits["train"], trial.batch_size, trial.seed)
        self.phases = method.phases()
        self.num_steps = sum(phase.num_steps for phase in self.phases)
        self.step = self._phase_number = self._phase_step = 0
        self.started = time.perf_counter()
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
            "guided_by": self.guided_by,
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
        self.guided_by = bookkeeping.guides(values.get("guided_by", self.guided_by), self.guided_by)
        self._restored = state

    @property
    def hands_on(self) -> bool:
        """Whether this is the moment whose `state` a run with a higher target can begin with."""
        phase = self.phases[self._phase_number]
        return phase.hands_on and self._phase_step == phase.num_steps

    def go_on(self, state: State) -> None:
        """Begin, at the next `steps`, with what another run had when it `hands_on`; with new counters."""
        own = bookkeeping.random_state(self.student.device)
        streams = {f"rank{self.ranks.rank}/{name}": stream for name, stream in own.items()}
        fresh = {"phase": 0, "phase_step": 0, "seconds": 0.0, "losses": [[], 0]}
        # It may have had fewer workers: the others draw from streams of their own.
        self.restore(State(0, {**streams, **state.tensors}, {**state.values, **fresh}))
        self.method.go_on(self.phases[0])
        groups = self._new_optimizer(self.phases[0]).param_groups
        kept = bookkeeping.without_own_moments(state.tensors, groups)
        self._restored = State(0, {**streams, **kept}, {})

    def _phase(self, phase: Phase) -> Iterator[Progress | None]:
        module = self._ready(phase)
        assert self._optimizer is not None
        if self._restored is not None:
            state = self._restored.tensors
            bookkeeping.restore_optimizer(self._optimizer, bookkeeping.under("optimizer", state))
            # Last, since making a model draws random weights.
            own = bookkeeping.under(f"rank{self.ranks.rank}", state)
            bookkeeping.restore_random(own, self.student.device)
            self._restored = None
        # A multiple of the evaluations, so that these fall on reports and every mean covers as many steps.
        share = REPORTS * phase.num_steps / self.num_steps
        times = EVALUATIONS
        if phase.select_best:
            times = evaluations(phase.num_steps * self.trial.batch_size, len(self.selection))
        reports = times * max(1, round(share / times))
        while self._phase_step < phase.num_steps:
            with without_onednn(self.precision):
                self._train(module, phase)
            report = None
            if due(self._phase_step, phase.num_steps, reports):
                # Elsewhere a score would choose nothing: a gated model is not the cut one.
                is_due = phase.select_best and due(self._phase_step, phase.num_steps, times)
                report = self._report(phase, self._evaluate() if is_due else None)
            # The best weights of a phase are all of one shape.
            if self.shrink and self._best is None and due(self._phase_step, phase.num_steps, LOOKS):
                module = self._shrink(module, phase)
            yield report
        if self._best is not None:
            self._best.restore(self.student)

    def _ready(self, phase: Phase) -> nn.Module:
        """Student and method as they are trained, with a new optimizer."""
        self.student.train()
        module: nn.Module = Step(self.student, self.method, self.ranks, self.precision)
        if self.ranks.size > 1:
            module = DistributedDataParallel(module, broadcast_buffers=False)
        self._optimizer = self._new_optimizer(phase)
        return module

    def _shrink(self, module: nn.Module, phase: Phase) -> nn.Module:
        """Go on with the method's smaller student, if it has one; what was learned is kept."""
        optimizer, before = self._optimizer, self._parameters()
        assert optimizer is not None
        shrunk = self.method.shrink(self.student, self._phase_step)
        if shrunk is None:
            return module
        self.student = shrunk.student
        module = self._ready(phase)
        assert self._optimizer is not None
        bookkeeping.carry_over(optimizer, before, self._optimizer, self._parameters(), shrunk.moments)
        return module

    def _parameters(self) -> dict[str, nn.Parameter]:
        """By the names that `Shrunk` has for them."""
        return dict(self.method.named_parameters()) | dict(self.student.named_parameters(prefix="student"))

    def _train(self, module: nn.Module, phase: Phase) -> None:
        """One step, in as many parts as `ranks` says."""
        optimizer, parts = self._optimizer, self.ranks.parts
        assert optimizer is not None
        schedule(optimizer, phase, self._phase_step)
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
        return None if self.guide is None else self.guide(batch)

    def _evaluate(self) -> float:
        """Score the student on the selection rows; its weights are kept if they are the best."""
        task = self.data.task
        assert self._best is not None
        with computing(self.precision, self.student.device):
            score = evaluate.score(self.student, task, self.selection, ranks=self.ranks)[task.metric]
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
            **resident_mib(),
        )
