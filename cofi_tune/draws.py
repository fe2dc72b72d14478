"""Proposals of a space that no study keeps: to check it, to show some, to check a user's own points."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import search_spaces
from cofi_tune.config import TrialConfig
from cofi_tune.data.task import Task


def draw(
    space: search_spaces.Loaded,
    args: argparse.Namespace,
    task: Task,
    points: Sequence[Mapping[str, Any] | None],
) -> list[Any]:
    """A proposal for every point, each checked; what a point leaves out is drawn at random, for None all.

    Returns:
        Frozen Optuna trials; their user attribute `proposal` has what was proposed, with the first target of
        the chain that there is, unless the point has one of its own.

    Raises:
        ValueError: the space fails, or proposes what is no configuration.
    """
    import optuna

    from cofi_tune import chains

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=args.seed))
    epochs = args.epochs or task.prune_epochs
    for point in points:
        if point is not None:
            study.enqueue_trial(dict(point))
        trial = study.ask()
        chained = args.chain and not chains.has_target(point or {})
        try:
            proposal = dict(chains.at(space.space, args.chain[0])(trial) if chained else space.space(trial))
        except chains.NoTarget:
            raise
        except Exception as error:  # a user's own file may raise anything
            raise ValueError(f"--space {args.space}: {type(error).__name__}: {error}") from error
        TrialConfig.from_proposal(proposal, base_learning_rate=1e-5, epochs=epochs, seed=args.seed)
        trial.set_user_attr("proposal", proposal)
    return study.trials


def enqueued(space: search_spaces.Loaded, args: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """The points in the file of `--enqueue`.

    Raises:
        ValueError: names the file, and the line where there is one.
    """
    from cofi_tune import points

    found = []
    for where, point in points.read(Path(args.enqueue), points.distributions(space.space)):
        try:
            [trial] = draw(space, args, task, [point])
        except ValueError as error:
            raise ValueError(f"--enqueue {where}: {error}") from error
        unasked = next((name for name in point if name not in trial.params), None)
        if unasked is not None:
            raise ValueError(f"--enqueue {where}: with these values the space asks for no {unasked}")
        found.append(point)
    return found
