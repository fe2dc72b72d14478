"""`python -m cofi_tune.search --task cola`: search for the BERTs that nobody beats on both score and speed."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofi_tune import machine
from cofi_tune.config import StudyConfig, TrialConfig
from cofi_tune.data.arguments import DATA_EXIT, USAGE_EXIT, Parser, add_source_arguments, source_from_arguments
from cofi_tune.data.names import closest, unknown
from cofi_tune.data.reader import DataError
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task

if TYPE_CHECKING:
    from rich.console import Console

    from search_spaces import Loaded

ENVIRONMENT_EXIT, ALL_FAILED_EXIT, INTERRUPTED_EXIT = 4, 5, 130

RANDOM_SIZES = ("tiny", "mini", "small", "medium")
"""As `components.pretrained` has them, which is too slow to import for looking at a flag."""
HUB_FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
SAMPLERS = ("tpe", "nsga2", "gp", "random")
SCENARIOS = ("throughput", "latency")
SELECTIONS = ("train", "dev")
EMBEDDED_MODEL, DEFAULT_MODEL = "mini", "bert-base-uncased"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 2 for wrong flags, 3 for data that cannot be used, 4 for what this machine lacks,
        5 if every trial failed, 130 if it was interrupted.
    """
    args = _parser().parse_args(arguments)
    try:
        task, source = source_from_arguments(args)
        space, share = check(args, task)
        if args.dry_run:
            from cofi_tune import dry_run

            drawn = draw(space, args, task, 3)
            dry_run.show(_console(), args, task, source, drawn, len(space.points))
            return 0
        return _search(args, task, source, share)
    except DataError as error:
        return _fail(error, DATA_EXIT)
    except ValueError as error:
        return _fail(error, USAGE_EXIT)
    except OSError as error:
        return _fail(error, ENVIRONMENT_EXIT)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on", INTERRUPTED_EXIT)


def check(args: argparse.Namespace, task: Task) -> tuple[Loaded, machine.Share]:
    """Fill in what was left open and refuse what cannot work, before anything slow is imported.

    Raises:
        ValueError: an unknown name, a proposal that is none, or more than this machine has.
    """
    import search_spaces

    args.model = args.model or (EMBEDDED_MODEL if task.generate is not None else DEFAULT_MODEL)
    check_model(args.model)
    space = search_spaces.load(args.space)
    draw(space, args, task, 3)
    for what, names in (("sampler", SAMPLERS), ("scenario", SCENARIOS), ("selection", SELECTIONS)):
        if getattr(args, what) not in names:
            raise ValueError(unknown(what, getattr(args, what), names))
    for flag in ("teacher", "tokenizer"):
        name = getattr(args, flag)
        if name is not None and name.startswith((".", "/", "~")) and not Path(name).is_dir():
            raise ValueError(f"--{flag} {name}: no such directory")
    args.name = args.name or re.sub(r"[^a-z0-9.]+", "-", f"{task.name}-{space.name}-{Path(args.model).name}".lower())
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", args.name):
        raise ValueError(f"--name {args.name}: letters, digits, dots and dashes, at most 80")
    share = machine.share(
        machine.this_machine(),
        cluster=args.address is not None,
        workers_per_trial=args.workers_per_trial,
        cpus_per_worker=args.cpus_per_worker,
        gpus_per_worker=args.gpus_per_worker,
        concurrency=args.concurrency,
    )
    return space, share


def check_model(model: str) -> None:
    """Refuse a name that can only be a slip, without asking the hub.

    Raises:
        ValueError: names the nearest.
    """
    if model in RANDOM_SIZES or Path(model).is_dir():
        return
    if model.startswith((".", "/", "~")) or model.count("/") > 1:
        raise ValueError(f"--model {model}: no such directory")
    if "/" not in model and not model.startswith(tuple(f"{family}-" for family in HUB_FAMILIES)):
        near = closest(model, RANDOM_SIZES) or closest(model, (DEFAULT_MODEL, "roberta-base"))
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(
            f"unknown model {model!r}; {hint}models: {', '.join(RANDOM_SIZES)} (random weights), a directory, "
            "or a hub id such as bert-base-uncased"
        )


def draw(space: Loaded, args: argparse.Namespace, task: Task, number: int) -> list[Any]:
    """Trials that the space proposes, the points it tries first among them, each checked.

    Returns:
        `number` frozen Optuna trials drawn at random; their user attribute `proposal` has what was proposed.

    Raises:
        ValueError: a proposal that is no configuration.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=args.seed))
    drawn = []
    for point in [None] * number + [*space.points]:
        if point is not None:
            study.enqueue_trial(dict(point))
        trial = study.ask()
        try:
            proposal = dict(space.space(trial))
        except Exception as error:  # a user's own file may raise anything
            raise ValueError(f"--space {args.space}: {type(error).__name__}: {error}") from error
        TrialConfig.from_proposal(
            proposal, base_learning_rate=1e-5, epochs=args.epochs or task.prune_epochs, seed=args.seed
        )
        trial.set_user_attr("proposal", proposal)
        drawn.append(study.trials[trial.number])
    return drawn[:number]


def _search(args: argparse.Namespace, task: Task, source: Source, share: machine.Share) -> int:
    from cofi_tune.progress import display, print_front

    console = _console()
    console.print(_headline(args, share), highlight=False, markup=False, soft_wrap=True)
    from cofi_tune import study, teacher  # seconds

    random = args.model in RANDOM_SIZES
    output = Path(args.output)
    teacher_epochs = task.random_teacher_epochs if random else task.teacher_epochs
    config = StudyConfig(
        name=args.name,
        task=task.name,
        source=source.to_json(),
        model=args.model,
        tokenizer=args.tokenizer,
        teacher=args.teacher,
        space=args.space,
        trials=args.trials,
        epochs=float(args.epochs or task.prune_epochs),
        teacher_epochs=float(args.teacher_epochs or teacher_epochs),
        base_learning_rate=teacher.base_learning_rate(args.model),
        sampler=args.sampler,
        seed=args.seed,
        max_train_samples=args.max_train_samples,
        scenario=args.scenario,
        reference_protocol=args.reference_protocol,
        selection=args.selection,
        output=output,
        tracking_uri=args.tracking_uri or f"sqlite:///{output.absolute() / 'mlflow.db'}",
        storage=args.storage or f"sqlite:///{output.absolute() / 'optuna.db'}",
        **share._asdict(),
    )
    try:
        with display(console, config.name) as watch:
            found = study.run(config, task, source, watch, address=args.address)
    except study.Interrupted:
        return _fail("interrupted; the same command goes on", INTERRUPTED_EXIT)
    print_front(console, found, str(config.directory))
    _print_pointers(console, found, config)
    return 0 if found["trials"] else ALL_FAILED_EXIT


def _console() -> Console:
    """A console as wide as it needs to be where nobody's window limits it."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


def _headline(args: argparse.Namespace, share: machine.Share) -> str:
    """What is about to happen, in one line."""
    if share.workers_per_trial:
        plural = "s" if share.workers_per_trial > 1 else ""
        where = f"{share.workers_per_trial} Ray Train worker{plural} each"
    else:
        where = "in process"
    device = f"{share.gpus_per_worker:g} GPU" if share.gpus_per_worker else f"{share.cpus_per_worker} CPU"
    device += "s" if not device.startswith("1 ") else ""
    return (
        f"{args.name}: {args.trials} trials of space {args.space} with model {args.model}, "
        f"{share.concurrency} at a time, {where}, {device} per process"
    )


def _print_pointers(console: Any, found: dict[str, Any], config: StudyConfig) -> None:
    """Where everything is."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    counts = ", ".join(f"{number} {name}" for name, number in found["counts"].items())
    say(f"Trials: {counts or 'none'}; front in {config.directory}/front.json, front.csv and front.svg")
    if not found["trials"]:
        say(f"No trial finished. Tracebacks, where there are any: {config.directory}/trials/*/error.txt")
    if found["comparison"]:
        if found["server_command"]:
            say(f"MLflow: {found['server_command']}")
        say(f"Comparison: {found['comparison']}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m cofi_tune.search", description=__doc__)
    add_source_arguments(parser)
    parser.add_argument("--max-train-samples", type=_positive, metavar="N", help="a fixed part of train")
    what = parser.add_argument_group("search")
    what.add_argument("--space", default="cofi", metavar="NAME", help="file in search_spaces/, or your own .py")
    what.add_argument("--trials", type=_positive, default=16, metavar="N", help="to finish in all (default 16)")
    what.add_argument("--sampler", default="tpe", metavar="NAME", help=f"{', '.join(SAMPLERS)} (default tpe)")
    what.add_argument("--seed", type=_count, default=0, metavar="N", help="of proposals, teacher and trials")
    what.add_argument("--scenario", default="throughput", metavar="NAME", help="whose speedup counts: " + " or ".join(SCENARIOS))
    what.add_argument("--name", help="of the study (default <task>-<space>-<model>); the same goes on with it")
    what.add_argument("--dry-run", action="store_true", help="say what would be searched, and stop")
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        help=f"{', '.join(RANDOM_SIZES)} (random weights), a directory or a hub id "
        f"(default {DEFAULT_MODEL}; {EMBEDDED_MODEL} for --task grammar)",
    )
    model.add_argument("--teacher", metavar="DIR", help="a fine-tuned model instead of one made here")
    model.add_argument("--epochs", type=_amount, metavar="N", help="of a trial (default: the task's)")
    model.add_argument("--teacher-epochs", type=_amount, metavar="N", help="default: the task's")
    model.add_argument("--selection", default="train", metavar="NAME", help="rows that choose checkpoints: a part of train, or dev as in the paper")
    model.add_argument("--reference-protocol", action="store_true", help="time as the CoFi paper did, too")
    where = parser.add_argument_group("machine")
    where.add_argument("--workers-per-trial", type=_count, metavar="N", help="Ray Train workers; 0: in process (default: 1 with a GPU or --address, else 0)")
    where.add_argument("--concurrency", type=_positive, metavar="N", help="trials at a time (default: what the GPUs hold; 1 without)")
    where.add_argument("--cpus-per-worker", type=_positive, metavar="N", help="threads (default: an equal share)")
    where.add_argument("--gpus-per-worker", type=_share_of_gpu, metavar="X", help="default: 1 where there is one")
    where.add_argument("--address", help="of a Ray cluster, or auto (default: a Ray of its own)")
    where.add_argument("--output", default="runs", metavar="DIR", help="holds everything (default runs)")
    where.add_argument("--tracking-uri", metavar="URI", help="of MLflow (default: mlflow.db in --output)")
    where.add_argument("--storage", metavar="URL", help="of Optuna (default: optuna.db in --output)")
    return parser


def _positive(text: str) -> int:
    number = _count(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _amount(text: str) -> float:
    number = _share_of_gpu(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _share_of_gpu(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return number


def _fail(error: object, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
