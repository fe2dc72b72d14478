"""The student becomes smaller while it trains, and everything that is learned beside it follows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cofi_tune.components import surgery
from cofi_tune.components.gates import LearnedGates
from cofi_tune.components.layer_matching import LayerMatching
from cofi_tune.modeling_cofi import CofiForSequenceClassification
from cofi_tune.records import PruningPlan

Moments = dict[str, Callable[[Tensor], Tensor]]


def shrink(
    student: CofiForSequenceClassification,
    plan: PruningPlan,
    gates: LearnedGates,
    matching: LayerMatching | None = None,
) -> tuple[CofiForSequenceClassification, Moments]:
    """Take units out of the student whose gates stay closed, in units of the dense encoder.

    What the student computes under any gates that are closed on these units, and the expected sparsity, stay.

    Args:
        student: what is there; left as it is.
        plan: what is to stay, a part of it.
        gates: the student's; become those of the smaller one.
        matching: of layers; its transform becomes as narrow as the smaller student.

    Returns:
        The smaller student, and how moments of an optimizer follow: by name of the parameter, below
        `student.`, `matching.` and `gates.`.
    """
    before = gates.present.plan
    small = surgery.cut(student, plan, present=before)
    axes = surgery.axes(plan, before, student.device)
    moments: Moments = {f"student.{name}": partial(surgery.select, axes=made) for name, made in axes.items()}
    if matching is not None:
        matching.narrow(plan.hidden)
        reading = partial(surgery.select, axes=axes["pooler.weight"])
        moments["matching.transform.weight"] = reading
    gates.keep(plan)
    for unit, present in gates.named_masks():
        # No gradient reaches them any more: without momentum they stay where they are.
        moments[f"gates.log_alpha.{unit}"] = partial(torch.mul, present)
    return small, moments
