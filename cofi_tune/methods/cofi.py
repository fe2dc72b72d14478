"""CoFi: coarse- and fine-grained structured pruning (Xia et al., ACL 2022, arXiv:2204.00408).

Gates on hidden units, heads, FFN units and whole sublayers are learned together with the weights under a
sparsity constraint, while the student imitates the teacher's predictions and layers. Then the closed
units are cut out and the small model recovers.

Helps: 2x to 12x with little loss on large data sets. Breaks: a ramp too short for the gates' learning rate
never reaches its target (keep `mask_travel` above 10); small data sets vary by 1-3 points between seeds.

Axes: L layers, A heads, H hidden units, F FFN units, N tokens.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from cofi_tune.components import distillation, lagrangian, shrinking, surgery
from cofi_tune.components.gates import UNITS, LearnedGates, Unit, live_layers
from cofi_tune.components.hard_concrete import LOG_ALPHA_LIMIT
from cofi_tune.components.layer_matching import LayerMatching
from cofi_tune.components.settling import Settling
from cofi_tune.components.sparsity_watch import SparsityWatch, require_reached, warn_if_unreachable
from cofi_tune.config import Strict, TrialConfig
from cofi_tune.data.batches import Batch
from cofi_tune.methods import Method, Phase, Shrunk, Status
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates, classification_loss
from cofi_tune.ranks import Ranks
from cofi_tune.records import PruningPlan


class Config(Strict):
    """Options of CoFi; defaults are the reference's recipe where nothing else is said."""

    target_sparsity: float = Field(gt=0, lt=1)
    """Share of the encoder layers' parameters to remove."""
    units: tuple[Unit, ...] = Field(default=UNITS, min_length=1)
    """What may be removed: residual dimensions, heads, attention sublayers, FFN units, FFN sublayers."""
    sparsity_schedule: Literal["linear", "cubic", "cosine"] = "linear"
    warmup_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the pruning steps over which the target rises to its final value."""
    mask_travel: float = Field(default=15.6, gt=0)
    """Mask learning rate times warm-up steps: about how far, in log alpha, Adam can move a gate during the
    ramp. Below about 10 the target cannot be reached in time; the reference's small tasks have
    0.01 x 1560."""
    mask_learning_rate: float | None = Field(default=None, gt=0)
    """Overrides what `mask_travel` gives."""
    multiplier_ratio: float = Field(default=1.0, gt=0)
    """Learning rate of the Lagrange multipliers in units of the masks'; the reference ties them."""
    initial_drop_rate: float = Field(default=0.5, gt=0, lt=1)
    """Of FFN units at the start of pruning (the reference's droprate_init; other gates start open)."""
    distill_temperature: float = Field(default=2.0, gt=0)
    layer_mix: float = Field(default=0.9, ge=0, le=1)
    """Weight of the layer loss; the prediction loss has the rest."""
    label_weight: float = Field(default=0.0, ge=0)
    """Weight of the label loss, absent from the reference."""
    layer_matching: Literal["off", "v3", "v4", "v6"] = "v4"
    recover_fraction: float = Field(default=1 / 6, gt=0, lt=1)
    """Share of the epochs spent on the cut model; the paper's 20 of 120 on small tasks."""
    recover_learning_rate_ratio: float = Field(default=1.0, gt=0)
    """Learning rate of recovery in units of the pruning phase's."""
    freeze_embeddings: bool = True


class Cofi(Method):
    """Phases finetune -> prune -> recover."""

    Config = Config

    def __init__(
        self, trial: TrialConfig, student: CofiForSequenceClassification, steps_per_epoch: int
    ) -> None:
        super().__init__(trial, student, steps_per_epoch)
        self.sizes = lagrangian.Sizes.of(student.config)
        self.phase: Phase | None = None
        self._plan: PruningPlan | None = None
        device, options = student.device, self.options
        self.gates = LearnedGates(options.units, self.sizes, options.initial_drop_rate, trial.seed, device)
        self.lambda_1, self.lambda_2 = lagrangian.new_multipliers(device)
        self.drawn = Gates()
        self.live_L: Tensor | None = None
        self.watch, self.settling = SparsityWatch(), Settling(self.gates)
        self.matching: LayerMatching | None = None
        if self.uses_hidden_states:
            layers, hidden = self.sizes.num_layers, self.sizes.hidden_size
            self.matching = LayerMatching(options.layer_matching, layers, hidden, trial.seed, device)

    @property
    def uses_hidden_states(self) -> bool:
        """Layer matching reads them."""
        return self.options.layer_matching != "off" and self.options.layer_mix > 0

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Those that layer matching may compare."""
        return () if self.matching is None else self.matching.candidates

    @property
    def plan(self) -> PruningPlan | None:
        """What stays, from the end of pruning on."""
        return self._plan

    def phases(self) -> list[Phase]:
        """Steps are shares of the trial's epochs."""
        trial, options = self.trial, self.options
        total = max(2, round(trial.epochs * self.steps_per_epoch))
        recover = min(total - 1, max(1, round(total * options.recover_fraction)))
        rate = trial.learning_rate
        phases = [
            Phase("prune", total - recover, rate, hands_on=True),
            Phase("recover", recover, rate * options.recover_learning_rate_ratio, select_best=True),
        ]
        finetune = round(trial.finetune_epochs * self.steps_per_epoch)
        return [Phase("finetune", finetune, rate), *phases] if finetune else phases

    @property
    def warmup_steps(self) -> int:
        """Steps over which the target sparsity rises."""
        prune = next(p for p in self.phases() if p.name == "prune")
        return max(1, round(prune.num_steps * self.options.warmup_fraction))

    @property
    def mask_learning_rate(self) -> float:
        """Of the gates' log alpha, per step."""
        return float(self.options.mask_learning_rate or self.options.mask_travel / self.warmup_steps)

    def _is_in(self, phase: str) -> bool:
        return self.phase is not None and self.phase.name == phase

    def enter(self, phase: Phase, student: CofiForSequenceClassification) -> CofiForSequenceClassification:
        """Switch gates on for pruning; cut for recovery."""
        if phase.name == "prune":
            warn_if_unreachable(self.mask_learning_rate, self.closing_steps, phase.num_steps)
        if phase.name == "recover":
            student = self._cut(student)
        self._switch(phase, student)
        return student

    def _switch(self, phase: Phase, student: CofiForSequenceClassification) -> None:
        """What learns in this phase."""
        self.phase = phase
        for parameter in (*self.gates.parameters(), self.lambda_1, self.lambda_2):
            parameter.requires_grad_(phase.name == "prune")
        student.embeddings.requires_grad_(not self.options.freeze_embeddings)

    @property
    def closing_steps(self) -> float:
        """Steps that Adam takes, at least, to move an open gate to where it is as good as closed."""
        return (LOG_ALPHA_LIMIT + 1.6) / self.mask_learning_rate

    def _cut(self, student: CofiForSequenceClassification) -> CofiForSequenceClassification:
        target = self.options.target_sparsity
        require_reached(self.gates.reached_sparsity(), target)
        plan, gates = self.gates.decide(target)
        small = surgery.cut(student, plan, gates, self.gates.present.plan)
        self._follow(plan, student.device)
        return small

    def shrink(self, student: CofiForSequenceClassification, step: int) -> Shrunk | None:
        """While pruning, remove what has settled; the last cut goes on from there."""
        plan = None
        if self._is_in("prune"):
            plan = self.settling.look(self.gates, step, self.closing_steps, self.options.target_sparsity)
        if plan is None or self.phase is None:
            return None
        small, moments = shrinking.shrink(student, plan, self.gates, self.matching)
        self._switch(self.phase, small)
        return Shrunk(small, moments)

    def _follow(self, plan: PruningPlan, device: torch.device) -> None:
        """The method itself becomes as narrow as the plan."""
        self._plan = plan
        if self.matching is not None:
            self.matching.narrow(plan.hidden)
        self.drawn = Gates()
        self.live_L = torch.tensor([bool(p.heads or p.ffn) for p in plan.layers], device=device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Masks descend, multipliers ascend, each at its constant rate; the transform as the student."""
        groups: list[dict[str, Any]] = []
        if self.matching is not None:
            groups.append({"params": list(self.matching.parameters()), "scheduled": True})
        if self._is_in("prune"):
            multipliers = {"params": [self.lambda_1, self.lambda_2], "maximize": True}
            groups.append({"params": list(self.gates.parameters()), "lr": self.mask_learning_rate})
            groups.append({**multipliers, "lr": self.mask_learning_rate * self.options.multiplier_ratio})
        return groups

    def before_forward(self, step: int, again: bool = False) -> Gates:
        """One draw of every gate while pruning, shared by the rows of the batch and by all workers."""
        if self.matching is not None and not again:
            self.matching.draw()
        if self._is_in("prune"):
            self.drawn = self.gates.sample(again)
        return self.drawn

    def losses(
        self, student: Encoded, teacher: Encoded | None, batch: Batch, step: int, ranks: Ranks
    ) -> dict[str, Tensor]:
        """Distillation, and the Lagrangian while pruning."""
        assert teacher is not None, "CoFi distils from a teacher"
        options = self.options
        regression = student.logits_BC.shape[-1] == 1
        mix = options.layer_mix if self.matching is not None else 0.0
        terms: dict[str, Tensor] = {}
        # The KL of one logit is 0 and would leave the head untrained: labels take its place.
        label_weight = options.label_weight + (1 - mix if regression else 0)
        if not regression:
            terms["cofi/prediction"] = (1 - mix) * distillation.prediction_loss(
                student.logits_BC, teacher.logits_BC, options.distill_temperature, batch.num_rows
            )
        if label_weight or regression:
            share = len(batch.labels_B) / batch.num_rows
            label_loss = classification_loss(student.logits_BC, batch.labels_B)
            terms["cofi/label"] = label_weight * share * label_loss
        if self.matching is not None:
            live_L = self.live_L
            if live_L is None:
                live_L = live_layers(self.drawn, self.sizes.num_layers, student.logits_BC.device)
            terms["cofi/layer"] = mix * self.matching.loss(student, teacher, live_L, batch.num_tokens, ranks)
        if self._is_in("prune"):
            expected, target = self.gates.expected_sparsity(), self._target_sparsity(step)
            penalty = lagrangian.penalty(expected, target, self.lambda_1, self.lambda_2)
            terms["cofi/lagrangian"] = penalty / ranks.shares
        return terms

    def _target_sparsity(self, step: int) -> float:
        options, start = self.options, (0.0, *self.trial.reached)[-1]
        return lagrangian.scheduled_sparsity(
            step, self.warmup_steps, options.target_sparsity, options.sparsity_schedule, start
        )

    def after_step(self) -> None:
        """Clamp log alpha."""
        if self._is_in("prune"):
            self.gates.clamp_()

    def status(self, step: int) -> Status:
        """Expected sparsity and its target; once the student is cut, what it came to."""
        if self.phase is None or self.phase.name == "finetune":
            return Status(0.0, 0.0)
        if not self._is_in("prune"):
            assert self.plan is not None, "recovery begins with the cut"
            return Status(self.plan.sparsity, self.options.target_sparsity)
        with torch.no_grad():
            return Status(float(self.gates.expected_sparsity()), self._target_sparsity(step))

    def check(self, status: Status, step: int) -> None:
        """Stop a run that is behind its schedule, beyond its target for long, or has nothing left."""
        if self.phase is None or not self._is_in("prune"):
            return
        live_L = live_layers(self.gates.at_evaluation(), self.sizes.num_layers, self.lambda_1.device)
        lengths = self.warmup_steps, self.phase.num_steps, self.closing_steps
        reached, target = self.gates.reached_sparsity(), status.target_sparsity or 0.0
        self.watch.check(reached, target, not live_L.any(), step, *lengths)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Gates, multipliers, transform and random streams; the plan, once there is one."""
        tensors = {**self.state_dict(), "stream": self.gates.stream.get_state()}
        return tensors, {
            "plan": None if self._plan is None else self._plan.to_json(),
            "present": self.gates.present.plan.to_json(),
            "matching_stream": None if self.matching is None else self.matching.stream_state(),
            "since": self.watch.since,
        }

    def restore(
        self,
        phase: Phase,
        student: CofiForSequenceClassification,
        tensors: dict[str, Tensor],
        values: dict[str, Any],
    ) -> None:
        """The inverse of `state`."""
        self.gates.keep(PruningPlan.from_json(values["present"]))
        if values["plan"] is not None:
            self._follow(PruningPlan.from_json(values["plan"]), student.device)
        elif self.matching is not None:
            self.matching.narrow(self.gates.present.plan.hidden)
        self.gates.stream.set_state(tensors.pop("stream"))
        if self.matching is not None:
            self.matching.restore_stream(values["matching_stream"])
        self.watch.since = dict(values["since"])
        self.load_state_dict(tensors)
        self._switch(phase, student)

    def go_on(self, phase: Phase) -> None:
        """A ramp of its own, from the target that was reached."""
        self.watch = SparsityWatch()
        warn_if_unreachable(self.mask_learning_rate, self.closing_steps, phase.num_steps)


METHOD = Cofi
