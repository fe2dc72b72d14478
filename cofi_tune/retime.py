"""The command `python -m cofi_tune.retime --study NAME`: times a study's models again, on this machine.

Nothing is trained. The report then has a front for each machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis import contracts
from cofi_tune import connection, machine, outbox, remeasure, studies, summary
from cofi_tune.ctrl_c import sigterm_is_ctrl_c
from cofi_tune.data.arguments import Parser, directory, positive
from cofi_tune.lock import only_driver
from cofi_tune.records import SCENARIOS
from cofi_tune.remeasure import BATCH, TimedAgain
from cofi_tune.terminal import ENVIRONMENT_EXIT, INTERRUPTED_EXIT, USAGE_EXIT, fail, say
from cofi_tune.tracking import Tracking


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 2 for wrong flags and for what is missing of the study, 4 for databases or a disk
        that cannot be used, 130 if it was interrupted.
    """
    args = _parser().parse_args(argv)
    # Before torch reads it; see trial.py.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sigterm_is_ctrl_c()
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return _command(args)
    except ValueError as error:
        return fail(error, USAGE_EXIT)
    except (studies.Unreachable, OSError) as error:
        return fail(error, ENVIRONMENT_EXIT)
    except KeyboardInterrupt:
        kept = "what was timed is kept; the same command times all again"
        return fail(f"interrupted; {kept}", INTERRUPTED_EXIT)


def _command(args: argparse.Namespace) -> int:
    machine.check_device(args.device)
    _check_threads(args.threads, args.device)
    output = Path(args.output)
    study = studies.named(studies.in_database(output, args.storage), output, args.study)
    tracking = studies.tracking(study, output, args.tracking_uri)
    scenario = str(study.user_attrs["purpose"].get("scenario", SCENARIOS[0]))
    timed: list[TimedAgain] = []

    def kept(one: TimedAgain) -> None:
        timed.append(one)
        say(_line(one))

    with only_driver(output / args.study, args.study, say, "wait for it, or end it"):
        try:
            remeasure.retime(
                study,
                output,
                device=args.device,
                num_threads=args.threads,
                throughput_rows=args.batch,
                note=kept,
            )
        finally:  # Ctrl-C keeps what was timed
            if timed:
                found, paths = summary.write(study, tracking.common, output)
                say(f"Report: {output / args.study / 'report.html'}")
                _to_mlflow(timed, tracking, paths, summary.metrics(found), args.storage)
    say(_fastest(timed, scenario))
    return 0


def _check_threads(threads: int | None, device: str) -> None:
    """Refuse threads that are none, or that would be ignored.

    Raises:
        ValueError: says why.
    """
    cpus = machine.this_machine().cpus
    if threads is not None and device != "cpu":
        raise ValueError(f"--threads is for the CPU; leave it out with --device {device}")
    if threads is not None and threads > cpus:
        raise ValueError(f"--threads {threads}: this machine has {cpus} CPUs; give fewer")


def _to_mlflow(
    timed: Sequence[TimedAgain],
    tracking: Tracking,
    paths: Sequence[Path],
    metrics: Mapping[str, float],
    storage: str | None,
) -> None:
    """Bring the runs up to date; MLflow being away costs a line, since everything is on disk."""
    try:
        for one, _ in timed:
            tracking.trial(one.asked, one.outcome, one.ended_ms)
        tracking.study_run(paths, metrics)
    except Exception as error:  # MLflow's clients, drivers and servers have one each
        line = connection.explain(error, tracking.uri)
        url = storage or outbox.default_storage(tracking.output)
        command = outbox.sync_command(tracking.output, tracking.study, url, tracking.uri)
        say(f"MLflow cannot be written ({line}); to write it when MLflow is there: {command}")


def _line(timed: TimedAgain) -> str:
    one, timing = timed
    speeds = (
        f"{t.scenario} {t.speedup:.2f} [{t.speedup_low:.2f}-{t.speedup_high:.2f}]" for t in timing.latencies
    )
    return f"{one.asked.trial_id}: {', '.join(speeds)}"


def _fastest(timed: Sequence[TimedAgain], scenario: str) -> str:
    """The fastest of the models in the scenario that is the study's objective."""

    def speedup(pair: TimedAgain) -> float:
        return next(t.speedup for t in pair[1].latencies if t.scenario == scenario)

    best = max(timed, key=speedup)
    where = contracts.label(contracts.as_text(best[1].contract))
    measured = best[0].outcome.measurement
    assert measured is not None
    return (
        f"Fastest on {where}: {best[0].asked.trial_id}, {speedup(best):.2f} times as fast as the dense model "
        f"({scenario}), with a score of {measured.score:.3f}"
    )


def _parser() -> Parser:
    made = Parser(
        prog="python -m cofi_tune.retime",
        description="Time the models of a study again, on this machine; nothing is trained.",
    )
    made.add_argument("--study", "--name", metavar="NAME", required=True, help="whose models")
    made.add_argument(
        "--output", type=directory, default="runs", metavar="DIR", help="of the search (default runs)"
    )
    made.add_argument("--storage", metavar="URL", help="of Optuna (default: optuna.db in the output)")
    made.add_argument("--tracking-uri", metavar="URI", help="of MLflow (default: where the search wrote)")
    made.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    made.add_argument("--threads", type=positive, metavar="N", help="of the CPU (default: all cores)")
    made.add_argument(
        "--batch",
        type=positive,
        default=BATCH,
        metavar="N",
        help=f"rows of a throughput batch (default {BATCH})",
    )
    return made


def _warn(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        print(f"warning: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
