"""Safe stops of a run under a sparsity constraint: by where it stands, never by its score.

Before the target is reached scores compare nothing: a run that prunes late looks good for free.
"""

from __future__ import annotations

import warnings

from cofi_tune.records import Stopped

REACHED_TOLERANCE = 0.05
"""How far below its target the expected sparsity, which swings about it, may be at the end of the ramp and at
the end of pruning. The cut has the target's sparsity in any case."""
SHORTEST_LAG = 100
"""Steps after the ramp before a run is called behind, in any case: multipliers start at 0, short runs catch
up late."""
BEYOND_TOLERANCE = 0.03
LONGEST_BEYOND, FEWEST_BEYOND = 0.5, 100
"""Share of the steps after the ramp, and number of steps in any case, that the expected sparsity may be
beyond its target by more than that, or every sublayer closed: multipliers that wind up drive gates to their
floor, where nothing teaches them any more. For a moment it may happen to a run that ends well."""


def require_reached(expected: float, target: float) -> None:
    """Refuse to cut before the target is reached.

    Args:
        expected: sparsity after pruning.
        target: what was asked for.

    Raises:
        Stopped: it is not.
    """
    if expected < target - REACHED_TOLERANCE:
        raise Stopped(
            "target_not_reached",
            f"expected sparsity {expected:.3f} after pruning, target {target:.3f}: "
            "give more epochs, or a higher cofi/mask_travel",
        )


def warn_if_unreachable(mask_learning_rate: float, closing_steps: float, num_steps: int) -> None:
    """Say so, before hours are spent, if gates cannot close in the steps that there are."""
    if closing_steps > num_steps:
        warnings.warn(
            f"closing a gate takes {closing_steps:.0f} steps at mask learning rate {mask_learning_rate:.3g}, "
            f"and there are {num_steps}: the target will not be reached. Raise mask_learning_rate (or "
            "mask_travel) or the number of epochs.",
            stacklevel=3,
        )


class SparsityWatch:
    """Remembers since when a run is where it should not be."""

    def __init__(self) -> None:
        self.since: dict[str, int] = {}
        """Reason -> step of the first of the reports in a row, up to the last, that gave it."""

    def check(
        self,
        expected: float,
        target: float,
        dead: bool,
        step: int,
        warmup_steps: int,
        num_steps: int,
        closing_steps: float = 0.0,
    ) -> None:
        """Called with every report of the pruning phase.

        Args:
            expected: sparsity under the gates, 0..1.
            target: of the schedule at this step.
            dead: whether every sublayer is closed.
            step: of the phase.
            warmup_steps: length of the ramp.
            num_steps: length of the phase.
            closing_steps: that an open gate takes to close. Gates follow a rising target by as many, and the
                multipliers that drive them by as many again: so long a run may be behind after the ramp.

        Raises:
            Stopped: `behind_schedule`, `overshoot` or `all_sublayers_dead`.
        """
        if step < warmup_steps:
            return
        lag = max(SHORTEST_LAG, 2 * closing_steps)
        if step >= warmup_steps + lag and expected < target - REACHED_TOLERANCE:
            raise Stopped(
                "behind_schedule",
                f"expected sparsity {expected:.3f} at step {step}, after the ramp, where {target:.3f} was "
                "due: give more epochs, or a higher cofi/mask_travel",
            )
        longest = max(FEWEST_BEYOND, LONGEST_BEYOND * (num_steps - warmup_steps))
        if self._lasts("overshoot", expected > target + BEYOND_TOLERANCE, step) > longest:
            raise Stopped(
                "overshoot",
                f"expected sparsity {expected:.3f}, target {target:.3f}, and beyond it since step "
                f"{self.since['overshoot']}: give a longer ramp, a lower cofi/mask_travel or "
                "cofi/multiplier_ratio",
            )
        if self._lasts("all_sublayers_dead", dead, step) > longest:
            raise Stopped(
                "all_sublayers_dead",
                f"every sublayer is closed since step {self.since['all_sublayers_dead']}: lower "
                "cofi/target_sparsity, or give a longer ramp",
            )

    def _lasts(self, reason: str, given: bool, step: int) -> int:
        """For how many steps it has been so."""
        if not given:
            self.since.pop(reason, None)
            return 0
        return step - self.since.setdefault(reason, step)
