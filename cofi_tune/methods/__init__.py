"""What a compression method must offer, and how one is found by its name.

    phases()                          what happens, in order, and for how many steps
    for each phase:
        enter(phase, student)         gates on or off, or a smaller student; before optimizer and DDP
        parameter_groups()            own learning rates; multipliers ascend
        for each step:
            before_forward(step)      -> gates for this step
            outputs = student(batch)
            losses(outputs, ...)      -> {"<method>/<term>": scalar}; the loop sums them and logs each
            backward, clip, step
            after_step()              clamp
        now and then:
            shrink(student)           -> a smaller student, once units are gone for good
    finish(student)                   -> what is shipped

One file in this folder is one method; its name is the file's name. Methods never import each other.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from cofi_tune.config import Strict, TrialConfig, build
from cofi_tune.data.batches import Batch
from cofi_tune.modeling_cofi import CofiForSequenceClassification, Encoded, Gates
from cofi_tune.ranks import Ranks
from cofi_tune.records import PruningPlan


@dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer."""

    name: str
    num_steps: int
    learning_rate: float
    schedule: str = "linear"
    """"linear" falls to 0 over the phase, "constant" stays."""
    warmup_fraction: float = 0.0
    select_best: bool = False
    """End the phase with the weights that scored best on the selection rows."""
    hands_on: bool = False
    """Its end is where a run with a higher target can begin."""


@dataclass(frozen=True)
class Status:
    """Where a method stands, for progress reports."""

    expected_sparsity: float | None = None
    target_sparsity: float | None = None


class Shrunk(NamedTuple):
    """A smaller student in the midst of a phase."""

    student: CofiForSequenceClassification
    """With parameters of its own; the method's may be new, too."""
    moments: dict[str, Callable[[Tensor], Tensor]]
    """How what an optimizer remembers of a parameter follows: by name, that of a parameter of the method,
    or `student.` and that of the student's; of those not named it stays as it is."""


class Method(nn.Module):
    """Base of all methods: remembers what lives beside the student (gates, multipliers, transforms)."""

    Config: ClassVar[type[Strict]]
    uses_teacher: ClassVar[bool] = True

    def __init__(
        self, trial: TrialConfig, student: CofiForSequenceClassification, steps_per_epoch: int
    ) -> None:
        """Check the options and remember the budget.

        Args:
            trial: the run's hyperparameters; `trial.options` become this method's `Config`.
            student: the dense model that is about to be compressed.
            steps_per_epoch: batches in one pass over the training rows.
        """
        super().__init__()
        self.trial = trial
        self.options: Any = build(self.Config, trial.options)
        self.steps_per_epoch = steps_per_epoch

    @property
    def uses_hidden_states(self) -> bool:
        """Whether `losses` needs the L + 1 hidden states of student and teacher."""
        return False

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Layers of the teacher, from 0, whose outputs `losses` may ask for."""
        return ()

    @property
    def plan(self) -> PruningPlan | None:
        """What stays of the dense model, once decided."""
        return None

    def phases(self) -> list[Phase]:
        """The phases of a run, in order."""
        raise NotImplementedError

    def enter(self, phase: Phase, student: CofiForSequenceClassification) -> CofiForSequenceClassification:
        """Prepare for a phase; returns the student to train, the same or a smaller one."""
        return student

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups of this method's own parameters; a group with `scheduled` follows the phase."""
        return []

    def before_forward(self, step: int, again: bool = False) -> Gates:
        """Gates for `step` of the current phase; `again`: the same draw, for another part of its batch."""
        return Gates()

    def losses(
        self, student: Encoded, teacher: Encoded | None, batch: Batch, step: int, ranks: Ranks
    ) -> dict[str, Tensor]:
        """Named terms whose sum is minimised; this worker's share of means over the global batch.

        Terms over data are sums over this worker's rows or tokens divided by the global number; terms that
        do not depend on data are divided by `ranks.shares`. Summed over all shares both are right.
        """
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after every optimizer step."""

    def shrink(self, student: CofiForSequenceClassification, step: int) -> Shrunk | None:
        """A smaller student that computes the same, if there is one now; None: go on with this one.

        Asked now and then, at the same steps of every worker, in phases that do not select their best
        weights. All workers must answer alike: decide by what they have in common.

        Args:
            student: as it is.
            step: of the current phase.
        """
        return None

    def status(self, step: int) -> Status:
        """Where the method stands at `step` of the current phase (reads from the device)."""
        return Status()

    def check(self, status: Status, step: int) -> None:
        """Called with every report.

        Raises:
            Stopped: this run can no longer give a model worth measuring, whatever its score.
        """

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint needs of the method: tensors, and JSON values."""
        return self.state_dict(), {}

    def restore(
        self,
        phase: Phase,
        student: CofiForSequenceClassification,
        tensors: dict[str, Tensor],
        values: dict[str, Any],
    ) -> None:
        """Stand where `state` was taken: in the midst of `phase`, with `student` as it was."""
        self.load_state_dict(tensors)

    def go_on(self, phase: Phase) -> None:
        """Called after `restore` where a run begins `phase` with what another ended it with."""

    def finish(self, student: CofiForSequenceClassification) -> CofiForSequenceClassification:
        """The model that is shipped."""
        return student


def names() -> list[str]:
    """Every method, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> type[Method]:
    """The method in `methods/<name>.py`.

    Raises:
        ValueError: there is none; names the nearest.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown method {name!r}; {hint}known are {', '.join(names())}")
    method: type[Method] = importlib.import_module(f"{__name__}.{name}").METHOD
    return method
