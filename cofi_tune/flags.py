"""The flags of a search, and what is wrong with them: said before anything slow is imported."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import search_spaces
from cofi_tune import draws, machine, mirror
from cofi_tune.budget import duration
from cofi_tune.cluster import check_address
from cofi_tune.config import CHAIN_EPOCHS, PRECISIONS, check_chain
from cofi_tune.data.arguments import (
    DEFAULT_MODEL,
    Parser,
    add_source_arguments,
    add_teacher_cache,
    amount,
    chain,
    check_chain_epochs,
    check_model,
    count,
    not_negative,
    positive,
)
from cofi_tune.data.names import unknown
from cofi_tune.data.reader import DataError
from cofi_tune.data.task import Task
from cofi_tune.model_names import RANDOM_SIZES
from cofi_tune.passwords import without_password
from cofi_tune.records import SCENARIOS

SAMPLERS = ("tpe", "nsga2", "gp", "random")
EMBEDDED_MODEL = "mini"
DRAWS = 3


class Checked(NamedTuple):
    """What the flags mean."""

    space: search_spaces.Loaded
    proposals: list[dict[str, Any]]
    """Some, drawn at random."""
    enqueue: tuple[dict[str, Any], ...]
    """Points of the user's own, to be proposed first."""
    share: machine.Share


def check(args: argparse.Namespace, task: Task) -> Checked:
    """Fill in what was left open and refuse what cannot work.

    Args:
        args: of `parser`; its `model`, `name` and `storage` are filled in.
        task: the task they name.

    Raises:
        DataError: no such data directory.
        ValueError: an unknown name, a proposal that is none, or more than this machine has.
    """
    if args.data_dir is not None and not Path(args.data_dir).is_dir():
        raise DataError(f"--data-dir {args.data_dir}: no such directory")
    args.model = args.model or args.teacher or (EMBEDDED_MODEL if task.generate else DEFAULT_MODEL)
    check_model(args.model)
    space = search_spaces.load(args.space, task.name)
    choices = {
        "sampler": SAMPLERS,
        "scenario": SCENARIOS[:2],
        "selection": ("train", "dev"),
        "precision": PRECISIONS,
    }
    for what, names in choices.items():
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
    for flag, url in (("--storage", args.storage), ("--tracking-uri", args.tracking_uri)):
        if url is not None:
            _check_owner(flag, url)
    if args.storage is not None:
        _check_database(args.storage)
    if args.address is not None:
        check_address(args.address)
    args.mirror = _mirror(args) if mirror.is_url(args.output) else None
    args.storage = args.storage or f"sqlite:///{Path(args.output).absolute() / 'optuna.db'}"
    args.chain = _chain(space, args)
    check_chain_epochs(args.chain_epochs, args.chain)
    args.chain_epochs = args.chain_epochs or CHAIN_EPOCHS
    drawn = draws.draw(space, args, task, [None] * DRAWS)
    draws.draw(space, args, task, space.points)
    share = machine.share(
        machine.this_machine(),
        cluster=args.address is not None,
        workers_per_trial=args.workers_per_trial,
        cpus_per_worker=args.cpus_per_worker,
        gpus_per_worker=args.gpus_per_worker,
        concurrency=args.concurrency,
    )
    if args.min_score is not None and args.min_score > 1:
        raise ValueError(f"--min-score {args.min_score:g}: every score lies within -1..1")
    if args.gpu_hours is not None and not share.gpus_per_worker:
        raise ValueError("--gpu-hours: trials run on the CPU here; limit them by --time-budget or --trials")
    enqueue = () if args.enqueue is None else tuple(draws.enqueued(space, args, task))
    if args.warm_start:
        from cofi_tune import warm_start

        own = None if args.fresh else args.name
        warm_start.check(args.storage, args.warm_start, own, args.scenario)
    return Checked(space, [trial.user_attrs["proposal"] for trial in drawn], enqueue, share)


def _chain(space: search_spaces.Loaded, args: argparse.Namespace) -> tuple[float, ...]:
    """The targets that were asked for, or those that the space has."""
    if args.chain is not None or not space.chain:
        return args.chain or ()
    try:
        return check_chain(space.chain)
    except ValueError as error:
        raise ValueError(f"--space {args.space}: CHAIN {error}") from None


def parser() -> Parser:
    """Of `python -m cofi_tune.search`."""
    made = Parser(
        prog="python -m cofi_tune.search",
        description="Search for the compressed BERTs that nobody beats on both score and measured speed.",
    )
    add_source_arguments(made)
    add = made.add_argument_group("search").add_argument
    add("--space", default="cofi", metavar="NAME", help="a file in search_spaces/, or a .py file of your own")
    add(
        "--chain",
        type=chain,
        metavar="S,S,...",
        help="prune each proposal to these sparsities, one after another, such as 0.6,0.75,0.9; or off "
        "(default: the space's own chain, if it has one)",
    )
    add(
        "--chain-epochs",
        type=amount,
        metavar="X",
        help=f"of each link after the first, in units of the first one's (default {CHAIN_EPOCHS})",
    )
    add("--trials", type=positive, default=16, metavar="N", help="to finish in all (default 16)")
    add("--time-budget", type=duration, metavar="TIME", help="of this command, such as 45s, 90m, 2h")
    add("--gpu-hours", type=amount, metavar="X", help="of the study's trials, over all its commands")
    add("--min-score", type=_finite, metavar="X", help="a model below is of no use")
    add("--min-speedup", type=amount, metavar="X", help="a model below is of no use")
    add("--enqueue", metavar="FILE", help="points to propose first: .json (a list), .jsonl or .csv")
    add(
        "--warm-start",
        metavar="STUDY",
        action="append",
        default=[],
        help="learn from an earlier study in the same storage (may be repeated)",
    )
    add("--sampler", default="tpe", metavar="NAME", help=f"{', '.join(SAMPLERS)} (default tpe)")
    add("--seed", type=count, default=0, metavar="N", help="of proposals, teacher and trials")
    add("--scenario", default="throughput", metavar="NAME", help="speedup to maximise: throughput or latency")
    add("--name", help="of the study (default <task>-<space>-<model>); the same name goes on with it")
    add("--fresh", action="store_true", help="start anew, under the first free name of <name>-2, -3, ...")
    add("--no-report", action="store_true", help="end without report.html and report.md")
    add("--dry-run", action="store_true", help="say what would be searched and what it would cost, and stop")
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
    add("--time-each", action="store_true", help="time every model, not each structure once")
    add = made.add_argument_group("machine").add_argument
    add(
        "--workers-per-trial",
        type=count,
        metavar="N",
        help="Ray Train workers; 0: in process (default: 1 with a GPU or --address, else 0)",
    )
    add(
        "--concurrency",
        type=positive,
        metavar="N",
        help="trials at a time (default: as many as GPUs or cluster hold, 1 on a CPU)",
    )
    add("--cpus-per-worker", type=positive, metavar="N", help="threads of each (default: an equal share)")
    add(
        "--gpus-per-worker", type=not_negative, metavar="X", help="or a part of one, such as 0.5 (default: 1)"
    )
    add(
        "--precision",
        default="auto",
        metavar="NAME",
        help="of training: fp32, bf16, or auto (default): bf16 on GPUs that compute in it",
    )
    add("--no-shrink", action="store_true", help="remove pruned units at the end only, not as they settle")
    add(
        "--checkpoint-seconds",
        type=not_negative,
        default=30.0,
        metavar="N",
        help="from one checkpoint of a trial to the next, at least (default 30)",
    )
    add(
        "--trial-timeout",
        type=duration,
        default=1800.0,
        metavar="TIME",
        help="without a step, after which a trial is ended and tried again (default 30m)",
    )
    add_teacher_cache(add)
    add("--address", help="auto, or HOST:PORT of a Ray cluster (default: a Ray of its own)")
    add = made.add_argument_group("results").add_argument
    add(
        "--output", default="runs", metavar="DIR", help="holds everything (default runs); or s3://bucket/runs"
    )
    add("--tracking-uri", metavar="URI", help="of MLflow (default: mlflow.db in the output directory)")
    add("--storage", metavar="URL", help="of Optuna (default: optuna.db in the output directory)")
    return made


def _mirror(args: argparse.Namespace) -> mirror.Mirror:
    """Of an output that is a URL; puts its working copy in its place."""
    made = mirror.of_url(args.output)
    if args.storage is None:
        raise ValueError(
            f"--output {made.place}: no place for the study's database, in which every trial is written; "
            "say where that goes: --storage postgresql://host/name, or sqlite:////a/file/that/stays.db"
        )
    args.output = str(made.local)
    return made


def _check_owner(flag: str, url: str) -> None:
    """Refuse what would make a part of a password the name of a host, and be said in an error."""
    if url.partition("//")[2].partition("?")[0].count("@") > 1:
        raise ValueError(f"{flag}: an @ in a user's name or password is written %40")


def _check_database(url: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        make_url(url).get_dialect().import_dbapi()
    except ImportError as error:
        shown = without_password(url)
        raise ValueError(f"--storage {shown}: install its driver ({error})") from error
    except SQLAlchemyError as error:
        shown = without_password(url)
        raise ValueError(
            f"--storage {shown}: no URL of a database, such as sqlite:///study.db or postgresql://host/name"
        ) from error


def _finite(text: str) -> float:
    """Any number but nan and the infinities."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number
