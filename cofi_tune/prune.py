"""The command for one run, without Ray: `python -m cofi_tune.prune --task sst2 --target-sparsity 0.8 ...`.

`run` does the same for a notebook.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofi_tune import machine
from cofi_tune.config import PRECISIONS, RANDOM_SIZES, Setup, TrialConfig, build
from cofi_tune.ctrl_c import sigterm_is_ctrl_c
from cofi_tune.data.arguments import (
    DATA_EXIT,
    DEFAULT_MODEL,
    USAGE_EXIT,
    Parser,
    add_source_arguments,
    amount,
    check_model,
    count,
    positive,
    share,
    source_from_arguments,
)
from cofi_tune.data.reader import DataError
from cofi_tune.records import SCENARIOS, InvalidPoint, Measurement, Progress, Stopped

if TYPE_CHECKING:
    from cofi_tune.data.sources import Source
    from cofi_tune.data.task import Task

NO_MODEL_EXIT, INTERRUPTED_EXIT = 5, 130
Report = Callable[[str, Progress], None]
"""Called with "teacher" or "student" and its progress."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 usage, 3 data, 5 no model, 130 Ctrl-C."""
    args = _parser().parse_args(argv)
    try:
        sigterm_is_ctrl_c()
        return _command(args)
    except DataError as error:
        return _fail(error, DATA_EXIT)
    except (Stopped, InvalidPoint) as error:
        return _fail(error, NO_MODEL_EXIT)
    except (ValueError, OSError) as error:
        return _fail(error, USAGE_EXIT)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on from the last checkpoint", INTERRUPTED_EXIT)


def run(
    task: Task,
    source: Source,
    *,
    model: str,
    output: Path,
    proposal: dict[str, Any],
    tokenizer: str | None = None,
    teacher: str | None = None,
    epochs: float | None = None,
    teacher_epochs: float | None = None,
    max_train_samples: int | None = None,
    seed: int = 0,
    report: Report = lambda who, progress: None,
    **setup: Any,
) -> Measurement:
    """Encode the task, prepare the teacher, prune: writes a loadable model and its measurement.

    Args:
        task: what to learn.
        source: where its rows are.
        model: a size with random weights, a directory or a hub id.
        output: receives the model, and caches of data and teacher.
        proposal: as of a search space, say `{"cofi/target_sparsity": 0.8}`.
        tokenizer: a directory or hub id; None: the model's own, or one trained on the task.
        teacher: a fine-tuned model to use; None: fine-tune one.
        epochs: passes over the training rows; None: the task's.
        teacher_epochs: the same for the teacher.
        max_train_samples: use only so many training rows.
        seed: of the run.
        report: called with every progress report.
        setup: fields of `Setup` (device, num_threads, scenario, ...).

    Raises:
        Stopped: the run ended without a model, with the reason.
        ValueError: data, model or options that cannot be used.
    """
    import torch

    from cofi_tune import checkpoint, compress, methods
    from cofi_tune import teacher as teachers
    from cofi_tune.components import pretrained
    from cofi_tune.data.encode import encode

    trial = TrialConfig.from_proposal(
        proposal,
        base_learning_rate=teachers.base_learning_rate(model),
        epochs=task.prune_epochs if epochs is None else epochs,
        seed=seed,
    )
    build(methods.load(trial.method).Config, trial.options)  # a slip is found before hours of teaching
    if setup.get("num_threads"):
        torch.set_num_threads(setup["num_threads"])
    words = tokenizer or pretrained.tokenizer_of(model)
    data = encode(task, source, words, output / "data", max_train_samples)
    own_epochs = task.random_teacher_epochs if model in RANDOM_SIZES else task.teacher_epochs
    directory = teachers.prepare(
        data,
        model,
        output,
        epochs=own_epochs if teacher_epochs is None else teacher_epochs,
        given=teacher,
        selection=data.selection_split(setup.get("selection", "train")),
        device=setup.get("device", "cpu"),
        precision=setup.get("precision", "auto"),
        on_progress=lambda progress: report("teacher", progress),
    )
    where = Setup(data=data.directory, teacher=directory, output=output, pretrained=model, **setup)
    for item in compress.compress(trial, where):
        if isinstance(item, Measurement):
            checkpoint.discard(compress.checkpoints_of(where))
            return item
        report("student", item)
    raise AssertionError("compress ends with a measurement")


def _parser() -> Parser:
    parser = Parser(prog="python -m cofi_tune.prune", description="Prune one model, without a search.")
    add_source_arguments(parser)
    group = parser.add_argument_group("what to do")
    sizes = ", ".join(RANDOM_SIZES)
    group.add_argument("--model", help=f"hub id, directory, or {sizes} (random weights)")
    group.add_argument("--teacher", metavar="DIR", help="a fine-tuned model (default: fine-tune one)")
    group.add_argument("--target-sparsity", type=share, required=True, metavar="S", help="in (0, 1)")
    group.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="any other hyperparameter, such as cofi/distill_temperature=4 or init=pretrained",
    )
    group.add_argument("--epochs", type=amount, help="of pruning and recovery together (default: the task's)")
    group.add_argument("--teacher-epochs", type=amount, help="default: the task's")
    group.add_argument("--max-train-samples", type=positive, metavar="N", help="use a fixed part")
    group.add_argument("--seed", type=count, default=0, help="of teacher and run (default 0)")
    where = parser.add_argument_group("where and how")
    where.add_argument("--output", type=Path, default=Path("out"), metavar="DIR", help="default: out")
    where.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    where.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of training (default auto: bf16 on GPUs)"
    )
    where.add_argument("--threads", type=positive, metavar="N", help="of the CPU (default: torch's)")
    where.add_argument("--scenario", choices=SCENARIOS[:2], default=SCENARIOS[0])
    where.add_argument("--reference-protocol", action="store_true", help="also time padded to 128, batch 128")
    where.add_argument(
        "--selection", choices=("train", "dev"), default="train", help="rows that pick weights"
    )
    return parser


def _command(args: argparse.Namespace) -> int:
    task, source = source_from_arguments(args)
    model = args.model or args.teacher or ("mini" if task.name == "grammar" else DEFAULT_MODEL)
    _check(args, model)
    proposal = {"cofi/target_sparsity": args.target_sparsity, **dict(map(_option, args.option))}
    from cofi_tune.prune_view import View

    with View() as view, warnings.catch_warnings(record=False):
        warnings.showwarning = view.warn
        measurement = run(
            task,
            source,
            model=model,
            output=args.output,
            proposal=proposal,
            tokenizer=args.tokenizer,
            teacher=args.teacher,
            epochs=args.epochs,
            teacher_epochs=args.teacher_epochs,
            max_train_samples=args.max_train_samples,
            seed=args.seed,
            report=view.report,
            device=args.device,
            precision=args.precision,
            num_threads=args.threads,
            scenario=args.scenario,
            scenarios=SCENARIOS if args.reference_protocol else SCENARIOS[:2],
            selection=args.selection,
        )
    view.table(task, measurement, args.output)
    return 0


def _check(args: argparse.Namespace, model: str) -> None:
    """Refuse what cannot work, before anything slow is imported.

    Raises:
        ValueError: names the flag.
    """
    if args.teacher is not None and not (Path(args.teacher) / "config.json").is_file():
        raise ValueError(f"--teacher {args.teacher}: no model directory (no config.json in it)")
    check_model(model)
    machine.check_device(args.device)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {args.output}: {error.strerror}; give another directory") from error


def _option(text: str) -> tuple[str, Any]:
    """`NAME=VALUE`; the value is JSON where it can be, else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option {text}: write NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _fail(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
