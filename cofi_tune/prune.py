"""The command for one run, without Ray: `python -m cofi_tune.prune --task sst2 --target-sparsity 0.8 ...`.

`run` does the same for a notebook.
"""

from __future__ import annotations

import argparse
import functools
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cofi_tune import machine, prune_flags
from cofi_tune.config import (
    CHAIN_EPOCHS,
    TEACHER_CACHE_BYTES,
    Setup,
    TeacherCache,
    TrialConfig,
    build,
)
from cofi_tune.ctrl_c import asks_first, sigterm_is_ctrl_c
from cofi_tune.data.arguments import (
    DEFAULT_MODEL,
    check_chain_epochs,
    check_model,
    source_from_arguments,
)
from cofi_tune.data.reader import DataError
from cofi_tune.model_names import RANDOM_SIZES
from cofi_tune.records import INTERRUPTED, SCENARIOS, InvalidPoint, Measurement, Progress, Stopped
from cofi_tune.terminal import DATA_EXIT, INTERRUPTED_EXIT, NO_MODEL_EXIT, USAGE_EXIT, fail

if TYPE_CHECKING:
    from cofi_tune.data.encode import EncodedTask
    from cofi_tune.data.sources import Source
    from cofi_tune.data.task import Task

DONE = "done.json"
"""Beside a link's results, until its chain is complete: what it was."""
Report = Callable[[str, Progress], None]
"""Called with "teacher", "student" or, of a chain, "link 2/3", and its progress."""
Finished = Callable[[Path, Measurement], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 usage, 3 data, 5 no model, 130 Ctrl-C."""
    args = prune_flags.parser().parse_args(argv)
    try:
        sigterm_is_ctrl_c()
        return _command(args)
    except DataError as error:
        return fail(error, DATA_EXIT)
    except (Stopped, InvalidPoint) as error:
        return fail(error, NO_MODEL_EXIT)
    except (ValueError, OSError) as error:
        return fail(error, USAGE_EXIT)
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from the last checkpoint", INTERRUPTED_EXIT)


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
    teacher_cache_bytes: int = TEACHER_CACHE_BYTES,
    chain: Sequence[float] = (),
    chain_epochs: float = CHAIN_EPOCHS,
    finished: Finished = lambda output, measurement: None,
    report: Report = lambda who, progress: None,
    **setup: Any,
) -> Measurement:
    """Encode the task, prepare the teacher, prune: writes a loadable model and its measurement.

    A chain makes one for each of its targets, in `link-1`, `link-2`, ... below the output; what is returned
    is the last one's.

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
        teacher_cache_bytes: most that is kept of the teacher's outputs, for later runs too; 0: nothing.
        chain: target sparsities, each reached from where the one before ended pruning; empty: one run, to the
            proposal's own.
        chain_epochs: of each link after the first, in units of the first one's.
        finished: called with each model's directory and measurement.
        report: called with every progress report.
        setup: fields of `Setup` (device, num_threads, scenario, ...).

    Raises:
        Stopped: the run ended without a model, with the reason.
        ValueError: data, model or options that cannot be used.
        KeyboardInterrupt: by Ctrl-C, with a checkpoint written if the student was being trained.
    """
    import torch

    from cofi_tune import checkpoint, methods
    from cofi_tune import teacher as teachers
    from cofi_tune.components import pretrained
    from cofi_tune.data.encode import encode
    from cofi_tune.process_memory import free_memory

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
    where = Setup(
        data=data.directory,
        teacher=directory,
        output=output,
        pretrained=model,
        teacher_cache=TeacherCache.below(output, teacher_cache_bytes),
        **setup,
    )
    places = _places(where, len(chain)) if chain else [where]
    with asks_first() as asked:
        for number, (own, place) in enumerate(zip(trial.links(chain, chain_epochs), places, strict=True), 1):
            who = f"link {number}/{len(places)}" if chain else "student"
            done = _done(own, place, data) if chain else None
            measurement = done or _made(own, place, asked, functools.partial(report, who))
            free_memory()
            finished(place.output, measurement)
            if chain:
                (place.output / DONE).write_text(json.dumps(_identity(own, place, data)))
            if asked() and place is not places[-1]:
                raise KeyboardInterrupt
    # Not before: the same command goes on at the end of what was finished.
    for place in places:
        (place.output / DONE).unlink(missing_ok=True)
        for name in (checkpoint.DIRECTORY, checkpoint.LINK):
            checkpoint.discard(place.output / name)
    return measurement


def _made(
    trial: TrialConfig, place: Setup, asked: Callable[[], bool], report: Callable[[Progress], None]
) -> Measurement:
    """One run, from its last checkpoint if there is one."""
    from cofi_tune import compress
    from cofi_tune.upkeep import Upkeep

    (place.output / DONE).unlink(missing_ok=True)  # of another run, whose results are replaced
    try:
        for item in compress.compress(trial, place, upkeep=Upkeep(place.checkpoint_seconds, asked)):
            if not isinstance(item, Measurement):
                report(item)
    except Stopped as stopped:
        if stopped.reason == INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    assert isinstance(item, Measurement), "compress ends with one"
    return item


def _done(trial: TrialConfig, place: Setup, data: EncodedTask) -> Measurement | None:
    """What an earlier command has made of this link, with the state for the next one."""
    from cofi_tune import checkpoint

    try:
        if json.loads((place.output / DONE).read_text()) != _identity(trial, place, data):
            return None
        if place.hands_on and not checkpoint.latest_step(place.output / checkpoint.LINK):
            return None
        return Measurement.from_json(json.loads((place.output / "measurement.json").read_text()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _identity(trial: TrialConfig, place: Setup, data: EncodedTask) -> dict[str, Any]:
    from cofi_tune import compress

    how = {"device", "num_threads", "scenario", "scenarios"}
    document = {**compress.identity(trial, place, data), **place.model_dump(mode="json", include=how)}
    return dict(json.loads(json.dumps(document)))


def _places(where: Setup, links: int) -> list[Setup]:
    """Of the links of a chain, each of which finds the one before."""
    outputs = [where.output / f"link-{place}" for place in range(1, links + 1)]
    return [
        where.model_copy(update={"output": own, "parent": parent, "hands_on": own != outputs[-1]})
        for parent, own in zip([None, *outputs], outputs, strict=False)
    ]


def _command(args: argparse.Namespace) -> int:
    task, source = source_from_arguments(args)
    model = args.model or args.teacher or ("mini" if task.name == "grammar" else DEFAULT_MODEL)
    _check(args, model)
    targets = args.chain or ()
    proposal = {
        "cofi/target_sparsity": targets[0] if targets else args.target_sparsity,
        **dict(map(prune_flags.option, args.option)),
    }
    from cofi_tune.prune_view import View

    with View() as view, warnings.catch_warnings(record=False):
        warnings.showwarning = view.warn
        run(
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
            chain=targets,
            chain_epochs=args.chain_epochs or CHAIN_EPOCHS,
            finished=lambda output, measurement: view.table(task, measurement, output),
            report=view.report,
            device=args.device,
            precision=args.precision,
            shrink=not args.no_shrink,
            num_threads=args.threads,
            teacher_cache_bytes=args.teacher_cache,
            scenario=args.scenario,
            scenarios=SCENARIOS if args.reference_protocol else SCENARIOS[:2],
            selection=args.selection,
        )
    return 0


def _check(args: argparse.Namespace, model: str) -> None:
    """Refuse what cannot work, before anything slow is imported.

    Raises:
        ValueError: names the flag.
    """
    if args.teacher is not None and not (Path(args.teacher) / "config.json").is_file():
        raise ValueError(f"--teacher {args.teacher}: no model directory (no config.json in it)")
    if args.chain == ():
        raise ValueError("--chain off: say how much to prune by --target-sparsity")
    check_chain_epochs(args.chain_epochs, args.chain)
    if "cofi/target_sparsity" in (prune_flags.option(text)[0] for text in args.option):
        raise ValueError(
            "--option cofi/target_sparsity: how much to prune is said by --target-sparsity or --chain"
        )
    check_model(model)
    machine.check_device(args.device)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--output {args.output}: {error.strerror}; give another directory") from error


if __name__ == "__main__":
    raise SystemExit(main())
