"""Chains of targets (`--chain`): a proposal is pruned to one sparsity after another, each link a trial.

A link has its parent's params and begins where its parent ended pruning. Which links there are is read from
the study alone, so that each is made once, whenever a driver dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from cofi_tune.messages import Link
from cofi_tune.optuna_study import link_of, trial_id_of
from cofi_tune.points import Point

TARGET = "/target_sparsity"
"""How the name of a method's option for its target ends."""
Space = Callable[[Any], Mapping[str, Any]]


class NoTarget(ValueError):  # noqa: N818
    """A space whose targets cannot be set."""


def has_target(point: Mapping[str, Any]) -> bool:
    """Whether a point says itself how much to prune: it is tried as it is, and is of no chain."""
    return any(name.endswith(TARGET) for name in point)


def at(space: Space, target: float) -> Space:
    """A space whose target sparsity is given, and so neither drawn nor a param that samplers know.

    Raises:
        NoTarget: by what is returned, if its method has no target.
    """

    def proposing(draw: Any) -> dict[str, Any]:
        proposal = dict(space(_Given(draw, target)))
        names = [name for name in proposal if name.endswith(TARGET)]
        if not names:
            method = proposal.get("method", "cofi")
            raise NoTarget(
                f"--chain: the space proposes no <method>{TARGET} for its method {method!r}; give --chain off"
            )
        return proposal | dict.fromkeys(names, target)

    return proposing


class _Given:
    """A draw that answers for the target by itself."""

    def __init__(self, draw: Any, target: float) -> None:
        self._draw, self._target = draw, target

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._draw, name)
        if not name.startswith("suggest_"):
            return asked

        def suggest(what: str, *rest: Any, **more: Any) -> Any:
            return self._target if what.endswith(TARGET) else asked(what, *rest, **more)

        return suggest


def without_target(points: Sequence[Mapping[str, Any]]) -> list[Point]:
    """A space's own points where the chain sets the targets: each recipe once."""
    left: list[Point] = []
    for point in points:
        recipe = {name: value for name, value in point.items() if not name.endswith(TARGET)}
        if recipe not in left:
            left.append(recipe)
    return left


def due(study: optuna.Study, chain: Sequence[float]) -> tuple[Point, Link] | None:
    """The params and the place of a link whose parent is complete, and that no trial of the study is.

    Args:
        study: whose trials.
        chain: every target; empty: there are no links.
    """
    if not chain:
        return None
    trials = [(trial, link_of(trial)) for trial in study.get_trials(deepcopy=False)]
    parents = {link.parent for _, link in trials if link is not None}
    for trial, link in trials:
        own = trial_id_of(study.study_name, trial.number)
        if trial.state is TrialState.COMPLETE and link and not link.is_last and own not in parents:
            return dict(trial.params), Link(link.root, own, link.place + 1, tuple(chain))
    return None


def may_follow(study: optuna.Study) -> bool:
    """Whether a trial runs whose end may make another link due."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(link is not None and not link.is_last for link in map(link_of, running))


def in_words(chain: Sequence[float], epochs: float) -> str:
    """A chain's targets, for a person."""
    targets = ", ".join(f"{100 * target:g}" for target in chain)
    return f"{targets} %, after the first with {epochs:g} of its epochs each"
