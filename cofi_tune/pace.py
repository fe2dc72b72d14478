"""What depends on how far a phase is: its learning rate, and what is done a few times in it."""

from __future__ import annotations

import torch

from cofi_tune.methods import Phase

EVALUATIONS = 4
"""Evaluations on the selection rows in a phase that keeps its best weights, at most."""


def schedule(optimizer: torch.optim.Optimizer, phase: Phase, step: int) -> None:
    """The phase's learning rate at `step`, for the groups that follow it."""
    warmup = phase.num_steps * phase.warmup_fraction
    factor = 1.0 if phase.schedule == "constant" else (phase.num_steps - step) / (phase.num_steps - warmup)
    if step < warmup:
        factor = (step + 1) / (warmup + 1)
    for group in optimizer.param_groups:
        if group["scheduled"]:
            group["lr"] = phase.learning_rate * factor


def evaluations(trained_rows: int, selection_rows: int) -> int:
    """How often a phase that keeps its best weights is scored.

    Between two evaluations it trains on as many rows as one of them reads. So they cost at most about a
    quarter of a phase; in a short link of a chain four would cost more than it.

    Args:
        trained_rows: of all steps of the phase.
        selection_rows: of an evaluation.
    """
    return max(1, min(EVALUATIONS, trained_rows // selection_rows))


def due(step: int, num_steps: int, times: int) -> bool:
    """Whether something done `times` times over `num_steps`, evenly and at the end, is due after `step`."""
    return step * times // num_steps > (step - 1) * times // num_steps
