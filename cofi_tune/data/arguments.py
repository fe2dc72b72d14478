"""The flags that say which task and where its rows are, the same for every command."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cofi_tune import config, model_names
from cofi_tune.config import TEACHER_CACHE_BYTES
from cofi_tune.data import catalogue
from cofi_tune.data.local import local_task
from cofi_tune.data.metrics import CLASSIFICATION, REGRESSION
from cofi_tune.data.names import closest
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from cofi_tune.model_names import RANDOM_SIZES
from cofi_tune.sizes import size
from cofi_tune.terminal import USAGE_EXIT

HUB_FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")
DEFAULT_MODEL = "bert-base-uncased"
OWN_FILES = ("train_file", "dev_file", "text_column", "label_column", "regression", "metric")


class Parser(argparse.ArgumentParser):
    """Prints one line for a wrong flag, with the nearest right one, and exits with 2."""

    def __init__(self, **settings: Any) -> None:
        """As `argparse.ArgumentParser`, without abbreviated flags."""
        super().__init__(**settings, allow_abbrev=False)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown flag is named together with the nearest one."""
        known, rest = self.parse_known_args(args, namespace)
        if rest:
            wrong = rest[0].split("=", 1)[0]
            near = closest(wrong, self._option_string_actions) if wrong[:1] == "-" else None
            self.error(f"unknown argument {wrong}" + (f"; did you mean {near}?" if near else ""))
        return known

    def error(self, message: str) -> NoReturn:
        """Print the line and exit."""
        self.exit(USAGE_EXIT, f"error: {message} (--help lists the flags)\n")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--task`, `--data-dir`, the flags of files of one's own, and `--tokenizer`."""
    group = parser.add_argument_group("data")
    group.add_argument("--task", help="a named task, or a name for files of your own")
    group.add_argument("--data-dir", metavar="DIR", help="official GLUE files, in DIR/CoLA and so on")
    group.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="a tokenizer's directory or hub id (default: the model's, or one made of the text)",
    )
    own = parser.add_argument_group("files of your own (csv, tsv, jsonl, parquet)")
    own.add_argument("--train-file", metavar="FILE")
    own.add_argument("--dev-file", metavar="FILE")
    own.add_argument("--text-column", metavar="NAME", action="append", help="twice for pairs")
    own.add_argument("--label-column", metavar="NAME")
    own.add_argument("--regression", action="store_true", help="labels are scores, not classes")
    own.add_argument("--metric", choices=CLASSIFICATION + REGRESSION, help="the one to maximise")


def add_teacher_cache(add: Callable[..., Any]) -> None:
    """Add `--teacher-cache` to a group, by its `add_argument`."""
    add(
        "--teacher-cache",
        type=size,
        default=TEACHER_CACHE_BYTES,
        metavar="SIZE",
        help="of the teacher's outputs that are kept for all trials, such as 512MiB, or off (default 4GiB)",
    )


def source_from_arguments(args: argparse.Namespace) -> tuple[Task, Source]:
    """The task and the source that the flags of `add_source_arguments` describe.

    Reads the training file if it is the user's own, since its labels are the classes.

    Raises:
        ValueError: flags that contradict each other, or a task that does not exist.
        DataError: (a ValueError; catch it first) a training file that cannot be used.
    """
    own = [f"--{name.replace('_', '-')}" for name in OWN_FILES if getattr(args, name)]
    if own and args.data_dir:
        raise ValueError(f"--data-dir and {own[0]} contradict each other; give one of them")
    return _own_files(args, own) if own else _named(args)


def _named(args: argparse.Namespace) -> tuple[Task, Source]:
    if args.task is None:
        known = ", ".join(catalogue.names())
        raise ValueError(f"give --task NAME ({known}), or --train-file and its companions")
    task = catalogue.load(args.task)
    if args.data_dir and task.layout is None:
        raise ValueError(f"--task {task.name} needs no files; leave --data-dir out")
    if args.data_dir:
        return task, Source.directory(args.data_dir)
    return task, Source.generated() if task.generate is not None else Source.hub()


def _own_files(args: argparse.Namespace, given: list[str]) -> tuple[Task, Source]:
    needed = ("--train-file", "--dev-file", "--text-column", "--label-column")
    missing = [flag for flag in needed if flag not in given]
    if missing:
        raise ValueError(f"{given[0]} needs {' and '.join(missing)} too")
    name = args.task or "local"
    if name in catalogue.names():
        raise ValueError(
            f"--task {name} is a data set of that name; call your own files something else, "
            f"such as --task my-{name}, so that their figures are never mixed up"
        )
    columns = (*args.text_column, args.label_column)
    if len(args.text_column) > 2 or len(set(columns)) < len(columns):
        raise ValueError("--text-column is given once or twice, and every column has one use")
    task = local_task(
        args.train_file,
        tuple(args.text_column),
        args.label_column,
        name=name,
        regression=args.regression,
        metric=args.metric,
    )
    return task, Source.files(args.train_file, args.dev_file)


def directory(text: str) -> str:
    """An argument that is a directory, where a URL may be meant."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise argparse.ArgumentTypeError(
            f"{text}: this takes a directory; a search with a URL for its output works in a copy below "
            "~/.cache/cofi_tune, and says which"
        )
    return text


def positive(text: str) -> int:
    """A whole number from 1 up."""
    number = count(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def count(text: str) -> int:
    """A whole number from 0 up."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def amount(text: str) -> float:
    """A number above 0."""
    number = not_negative(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def not_negative(text: str) -> float:
    """A number from 0 up."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return number


def share(text: str) -> float:
    """A number between 0 and 1, neither of them."""
    number = not_negative(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def chain(text: str) -> tuple[float, ...]:
    """Sparsities that rise, such as `0.6,0.75,0.9`; `off` is none."""
    if text == "off":
        return ()
    try:
        targets = [float(one) for one in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0.6,0.75,0.9") from None
    try:
        return config.check_chain(targets)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def check_chain_epochs(chain_epochs: float | None, chain: tuple[float, ...] | None) -> None:
    """Refuse `--chain-epochs` where there is no chain.

    Raises:
        ValueError: names the flag.
    """
    if chain_epochs is not None and not chain:
        raise ValueError("--chain-epochs is about the links of a --chain; give one")


def check_model(model: str) -> None:
    """Refuse a name that can only be a slip, without asking the hub.

    Raises:
        ValueError: names the nearest.
    """
    model_names.check_model(model)
    if Path(model).is_dir() and not (Path(model) / "config.json").is_file():
        raise ValueError(f"--model {model}: the directory holds no model (no config.json)")
    plain = "/" not in model and model not in RANDOM_SIZES and not Path(model).is_dir()
    if plain and not model.startswith(tuple(f"{family}-" for family in HUB_FAMILIES)):
        near = closest(model, (*RANDOM_SIZES, DEFAULT_MODEL, "roberta-base"))
        hint = f"did you mean {near}? " if near else ""
        raise ValueError(
            f"--model {model}: unknown; {hint}give one of {', '.join(RANDOM_SIZES)} (random weights), "
            "a directory, or a hub id such as bert-base-uncased"
        )
