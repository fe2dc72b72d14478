"""The flags of a search, and what is wrong with them: said before anything slow is imported."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import search_spaces
from cofi_tune import machine
from cofi_tune.config import RANDOM_SIZES, TrialConfig
from cofi_tune.data.arguments import (
    DEFAULT_MODEL,
    Parser,
    add_source_arguments,
    amount,
    check_model,
    count,
    not_negative,
    positive,
)
from cofi_tune.data.names import unknown
from cofi_tune.data.reader import DataError
from cofi_tune.data.task import Task
from cofi_tune.records import SCENARIOS

SAMPLERS = ("tpe", "nsga2", "gp", "random")
EMBEDDED_MODEL = "mini"
DRAWS = 3


def check(args: argparse.Namespace, task: Task) -> tuple[search_spaces.Loaded, machine.Share]:
    """Fill in what was left open and refuse what cannot work.

    Args:
        args: of `parser`; its `model` and `name` are filled in.
        task: the task they name.

    Raises:
        DataError: no such data directory.
        ValueError: an unknown name, a proposal that is none, or more than this machine has.
    """
    if args.data_dir is not None and not Path(args.data_dir).is_dir():
        raise DataError(f"--data-dir {args.data_dir}: no such directory")
    args.model = args.model or args.teacher or (EMBEDDED_MODEL if task.generate else DEFAULT_MODEL)
    check_model(args.model)
    space = search_spaces.load(args.space)
    for what, names in (("sampler", SAMPLERS), ("scenario", SCENARIOS[:2]), ("selection", ("train", "dev"))):
        if getattr(args, what) not in names:
            raise ValueError(unknown(what, getattr(args, what), names))
    for flag in ("teacher", "tokenizer"):
        name = getattr(args, flag)
        if name is not None and name.startswith((".", "/", "~")) and not Path(name).is_dir():
            raise ValueError(f"--{flag} {name}: no such directory")
    default = f"{task.name}-{space.name}-{Path(args.model).name}".lower()
    args.name = args.name or re.sub(r"[^a-z0-9.]+", "-", default)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", args.name):
        raise ValueError(f"--name {args.name}: letters, digits, dots and dashes, at most 80")
    draw(space, args, task, DRAWS)
    share = machine.share(
        machine.this_machine(),
        cluster=args.address is not None,
        workers_per_trial=args.workers_per_trial,
        cpus_per_worker=args.cpus_per_worker,
        gpus_per_worker=args.gpus_per_worker,
        concurrency=args.concurrency,
    )
    return space, share


def draw(space: search_spaces.Loaded, args: argparse.Namespace, task: Task, number: int) -> list[Any]:
    """Proposals drawn at random, and the points that the space tries first; each is checked.

    Returns:
        `number` frozen Optuna trials; their user attribute `proposal` has what was proposed.

    Raises:
        ValueError: the space fails, or proposes what is no configuration.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=args.seed))
    epochs = args.epochs or task.prune_epochs
    for point in [None] * number + [*space.points]:
        if point is not None:
            study.enqueue_trial(dict(point))
        trial = study.ask()
        try:
            proposal = dict(space.space(trial))
        except Exception as error:  # a user's own file may raise anything
            raise ValueError(f"--space {args.space}: {type(error).__name__}: {error}") from error
        TrialConfig.from_proposal(proposal, base_learning_rate=1e-5, epochs=epochs, seed=args.seed)
        trial.set_user_attr("proposal", proposal)
    return study.trials[:number]


def parser() -> Parser:
    """Of `python -m cofi_tune.search`."""
    made = Parser(
        prog="python -m cofi_tune.search",
        description="Search for the compressed BERTs that nobody beats on both score and measured speed.",
    )
    add_source_arguments(made)
    add = made.add_argument_group("search").add_argument
    add("--space", default="cofi", metavar="NAME", help="a file in search_spaces/, or a .py file of your own")
    add("--trials", type=positive, default=16, metavar="N", help="to finish in all (default 16)")
    add("--sampler", default="tpe", metavar="NAME", help=f"{', '.join(SAMPLERS)} (default tpe)")
    add("--seed", type=count, default=0, metavar="N", help="of proposals, teacher and trials")
    add("--scenario", default="throughput", metavar="NAME", help="speedup to maximise: throughput or latency")
    add("--name", help="of the study (default <task>-<space>-<model>); the same name goes on with it")
    add("--dry-run", action="store_true", help="say what would be searched, and stop")
    add = made.add_argument_group("training").add_argument
    sizes = ", ".join(RANDOM_SIZES)
    add(
        "--model",
        help=f"{sizes} (random weights), a directory or a hub id "
        f"(default {DEFAULT_MODEL}; {EMBEDDED_MODEL} for --task grammar)",
    )
    add("--teacher", metavar="DIR", help="a fine-tuned model (default: one is fine-tuned, once)")
    add("--epochs", type=amount, metavar="N", help="of a trial (default: the task's)")
    add("--teacher-epochs", type=amount, metavar="N", help="default: the task's")
    add("--max-train-samples", type=positive, metavar="N", help="use a fixed part of the training rows")
    add(
        "--selection", default="train", metavar="NAME", help="rows that choose weights: part of train, or dev"
    )
    add("--reference-protocol", action="store_true", help="time as the CoFi paper did, too")
    add = made.add_argument_group("machine").add_argument
    add(
        "--workers-per-trial",
        type=count,
        metavar="N",
        help="Ray Train workers; 0: in process (default: 1 with a GPU or --address, else 0)",
    )
    add(
        "--concurrency", type=positive, metavar="N", help="trials at a time (default: as the GPUs hold, or 1)"
    )
    add("--cpus-per-worker", type=positive, metavar="N", help="threads of each (default: an equal share)")
    add("--gpus-per-worker", type=not_negative, metavar="X", help="default: 1 where there is one")
    add("--address", help="of a Ray cluster, or auto (default: a Ray of its own)")
    add = made.add_argument_group("results").add_argument
    add("--output", default="runs", metavar="DIR", help="holds everything (default runs)")
    add("--tracking-uri", metavar="URI", help="of MLflow (default: mlflow.db in the output directory)")
    add("--storage", metavar="URL", help="of Optuna (default: optuna.db in the output directory)")
    return made
