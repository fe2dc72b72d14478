"""A handful of trials in minutes on a CPU: spreads over the front, varies little else.

For demonstrations and tests, with a small model from random weights and few epochs. The first proposals are a
ladder of sparsities; what follows is drawn around them.
"""

from __future__ import annotations

from typing import Any

from search_spaces import Draw

REFERENCE: dict[str, Any] = {
    "learning_rate_ratio": 1.0,
    "cofi/target_sparsity": 0.75,
    "cofi/mask_travel": 25.0,
    "cofi/layer_mix": 0.5,
}

POINTS: list[dict[str, Any]] = [
    REFERENCE,
    {**REFERENCE, "cofi/target_sparsity": 0.9},
    # A student that loses little needs little retraining.
    {**REFERENCE, "cofi/target_sparsity": 0.4, "learning_rate_ratio": 0.5},
    {**REFERENCE, "cofi/target_sparsity": 0.85},
    {**REFERENCE, "cofi/target_sparsity": 0.8},
]
"""In an order that spans the front early, for a search that is cut short."""


def space(draw: Draw) -> dict[str, Any]:
    """A proposal."""
    return {
        "method": "cofi",
        # Around the rate at which the small teacher was trained.
        "learning_rate_ratio": draw.suggest_float("learning_rate_ratio", 0.5, 2.0, log=True),
        # The paper's grid is .60 to .95; .40 for an accurate end.
        "cofi/target_sparsity": draw.suggest_float("cofi/target_sparsity", 0.4, 0.95),
        # Below 10 the gates cannot close in time (`search_spaces/cofi.py`); a short ramp wants little more.
        "cofi/mask_travel": draw.suggest_float("cofi/mask_travel", 15.0, 50.0, log=True),
        # The paper's .9, .7, .5, and mostly predictions, which a small model copies more easily.
        "cofi/layer_mix": draw.suggest_categorical("cofi/layer_mix", [0.1, 0.5, 0.9]),
        # A third of so few epochs for the cut model: with the reference's sixth it barely recovers.
        "cofi/recover_fraction": 1 / 3,
        # Steeper ramps overshoot when they have so few steps, and gates that start half closed hurt.
        "cofi/warmup_fraction": 0.5,
        "cofi/initial_drop_rate": 0.1,
    }
