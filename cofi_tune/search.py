"""The main command, `python -m cofi_tune.search --task cola`: flags -> StudyConfig -> study.run."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cofi_tune import cluster, flags, machine, preflight
from cofi_tune.config import StudyConfig, build
from cofi_tune.ctrl_c import sigterm_is_ctrl_c
from cofi_tune.data.arguments import source_from_arguments
from cofi_tune.data.reader import DataError
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from cofi_tune.model_names import RANDOM_SIZES
from cofi_tune.passwords import masked
from cofi_tune.records import Stopped
from cofi_tune.terminal import DATA_EXIT, ENVIRONMENT_EXIT, INTERRUPTED_EXIT, NO_MODEL_EXIT, USAGE_EXIT, fail

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 2 for wrong flags, 3 for data that cannot be used, 4 for what this machine lacks,
        5 if no trial gave a model, 130 if it was interrupted.
    """
    args = flags.parser().parse_args(argv)
    args.typed = sys.argv[1:] if argv is None else [*argv]
    try:
        sigterm_is_ctrl_c()
        return _command(args)
    except DataError as error:
        return fail(error, DATA_EXIT)
    except ValueError as error:
        return fail(error, USAGE_EXIT)
    except OSError as error:
        return fail(error, ENVIRONMENT_EXIT)
    except Stopped as error:
        return fail(f"the teacher cannot be trained: {error}", NO_MODEL_EXIT)
    except KeyboardInterrupt:
        left = "interrupted; what is finished is kept, and the same command goes on:"
        return fail(f"{left}\n  {_command_of(args)}", INTERRUPTED_EXIT)


def _command_of(args: argparse.Namespace) -> str:
    """What the user typed, without passwords."""
    return masked(shlex.join(["python", "-m", "cofi_tune.search", *args.typed]))


def _command(args: argparse.Namespace) -> int:
    task, source = source_from_arguments(args)
    checked = flags.check(args, task)
    console = _console()
    # Before torch reads it; see trial.py.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args.address is None:
        # Before Ray reads it. The switch, meant for firewalls of other systems, is the only one by which all
        # processes of a Ray listen on loopback alone; without it they listen on every interface.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if "lo" in (name for _, name in socket.if_nameindex()):
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    if args.dry_run:
        from cofi_tune import dry_run

        config = _config(args, task, source, checked)
        config = config.model_copy(update={"concurrency": max(1, config.concurrency)})
        dry_run.show(console, config, task, source, checked.space, checked.proposals)
        return 0
    output = Path(args.output)
    preflight.writable(output)
    if args.mirror is not None:
        args.mirror.check()
    if args.address is not None:
        cluster.check_answers(args.address)
    if args.fresh:
        from cofi_tune import storage

        args.name = storage.fresh_name(args.name, output, args.storage)
        console.print(f"starting anew, as {args.name}", markup=False)
    console.print(_headline(args, checked.share), markup=False, soft_wrap=True)
    from cofi_tune import study, summary  # seconds
    from cofi_tune.progress import Foreign, display

    config = _config(args, task, source, checked)
    try:
        with display(console, config.name) as watch, contextlib.redirect_stdout(Foreign(watch)):
            found = study.run(config, task, source, watch, address=args.address)
    except study.Interrupted:
        raise KeyboardInterrupt from None
    place = None if config.mirror is None else config.mirror.url(config.directory)
    summary.show(console, found, config.directory, place)
    return 0 if found["trials"] else NO_MODEL_EXIT


def _config(args: argparse.Namespace, task: Task, source: Source, checked: flags.Checked) -> StudyConfig:
    from cofi_tune import outbox, teacher

    output = Path(args.output)
    teacher_epochs = task.random_teacher_epochs if args.model in RANDOM_SIZES else task.teacher_epochs
    values = {
        "name": args.name,
        "task": task.name,
        "source": source.to_json(),
        "model": str(Path(args.model).absolute()) if Path(args.model).is_dir() else args.model,
        "tokenizer": args.tokenizer,
        "teacher": args.teacher,
        "space": args.space,
        "chain": args.chain,
        "chain_epochs": args.chain_epochs,
        "trials": args.trials,
        "epochs": float(args.epochs or task.prune_epochs),
        "teacher_epochs": float(args.teacher_epochs or teacher_epochs),
        "base_learning_rate": teacher.base_learning_rate(args.model),
        "enqueue": checked.enqueue,
        "warm_start": tuple(args.warm_start),
        "min_score": args.min_score,
        "min_speedup": args.min_speedup,
        "time_budget_seconds": args.time_budget,
        "gpu_hours": args.gpu_hours,
        "sampler": args.sampler,
        "seed": args.seed,
        "max_train_samples": args.max_train_samples,
        "scenario": args.scenario,
        "reference_protocol": args.reference_protocol,
        "time_each": args.time_each,
        "selection": args.selection,
        "precision": args.precision,
        "shrink": not args.no_shrink,
        "checkpoint_seconds": args.checkpoint_seconds,
        "timeout_seconds": args.trial_timeout,
        "teacher_cache_bytes": args.teacher_cache,
        "output": output,
        "mirror": args.mirror,
        "tracking_uri": args.tracking_uri or outbox.default_tracking(output),
        "storage": args.storage,
        "command": _command_of(args),
        "report": not args.no_report,
    }
    return build(StudyConfig, values | checked.share._asdict())


def _console() -> Console:
    """A console as wide as it needs to be where nobody's window limits it."""
    from rich.console import Console

    # Bound to the stream as it is now: what libraries print later goes another way.
    if sys.stdout.isatty():
        return Console(file=sys.stdout, highlight=False)
    # A job's log, whatever FORCE_COLOR says: whole lines, each flushed, and no codes for a terminal.
    return Console(file=sys.stdout, highlight=False, width=160, force_terminal=False)


def _headline(args: argparse.Namespace, share: machine.Share) -> str:
    """What is about to happen, in one line."""
    workers = share.workers_per_trial
    where = f"{workers} Ray Train worker{'s' if workers > 1 else ''} each" if workers else "in process"
    number, device = (
        (share.gpus_per_worker, "GPU") if share.gpus_per_worker else (share.cpus_per_worker, "CPU")
    )
    at_once = (
        f"{share.concurrency} at a time" if share.concurrency else "as many at a time as the cluster holds"
    )
    return (
        f"{args.name}: {args.trials} trials of space {args.space} with model {args.model}, "
        f"{at_once}, {where}, {number:g} {device}{'s' if number != 1 else ''} per process"
    )


if __name__ == "__main__":
    sys.exit(main())
