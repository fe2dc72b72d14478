"""The command `python -m cofi_tune.sync`: writes to MLflow what it missed of finished trials, once.

The study and the trials' histories are on disk, so this may be run at any time, a search may be running, and
any number of times.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna

from cofi_tune import connection, optuna_study, studies, summary
from cofi_tune.data.arguments import Parser, directory
from cofi_tune.studies import Unreachable
from cofi_tune.terminal import ENVIRONMENT_EXIT, USAGE_EXIT, fail
from cofi_tune.tracking import Tracking

FILES = ("front.json", "front.csv", "front*.svg", "structure.svg", "report.*", "trials.parquet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0; 2 for wrong flags, 4 if MLflow or the database of the studies cannot be used.
    """
    args = _parser().parse_args(argv)
    output = Path(args.output)
    status = 0
    try:
        ours = studies.in_database(output, args.storage)
        wanted = [studies.named(ours, output, args.name)] if args.name else studies.of_output(ours, output)
        for study in wanted:
            try:
                _sync(study, studies.tracking(study, output, args.tracking_uri))
            except ValueError as error:
                status = max(status, fail(error, USAGE_EXIT))
            except Unreachable as error:
                status = max(status, fail(error, ENVIRONMENT_EXIT))
    except ValueError as error:
        return fail(error, USAGE_EXIT)
    except Unreachable as error:
        return fail(error, ENVIRONMENT_EXIT)
    return status


def _sync(study: optuna.Study, tracking: Tracking) -> None:
    """Bring MLflow up to date with the finished trials of a study; one that runs is its search's own.

    Raises:
        Unreachable: something could not be written; what was is kept.
    """
    name = study.study_name
    counts = {True: 0, False: 0}
    refused: dict[str, Exception] = {}
    try:
        for one in optuna_study.finished(study):
            try:
                counts[tracking.trial(one.asked, one.outcome, one.ended_ms)] += 1
            except Exception as error:
                if not connection.outdated(error):
                    raise
                refused[one.asked.trial_id] = error
        files = _files(tracking.output / name)
        if files:
            found = summary.of(json.loads(files[0].read_text(encoding="utf-8")))
            tracking.study_run(files, summary.metrics(found))
    except Exception as error:  # MLflow's clients, drivers and servers have one each
        line = connection.explain(error, tracking.uri)
        raise Unreachable(f"{name}: MLflow cannot be written ({line}); run this again later") from error
    print(f"{name}: {counts[True]} written, {counts[False]} were there already", flush=True)
    if refused:
        first, why = next(iter(refused.items()))
        line = connection.explain(why, tracking.uri)
        raise Unreachable(f"{name}: MLflow refused {len(refused)}, the first is {first}: {line}")


def _files(directory: Path) -> list[Path]:
    """Front and report as a search left them, `front.json` first; none if there is none, or half of one."""
    paths = [path for pattern in FILES for path in sorted(directory.glob(pattern))]
    try:
        summary.of(json.loads(paths[0].read_text(encoding="utf-8")))
    except (IndexError, KeyError, ValueError, OSError):
        return []
    return paths


def _parser() -> Parser:
    made = Parser(
        prog="python -m cofi_tune.sync",
        description="Write to MLflow what it missed of finished trials. Run it at any time, and again.",
    )
    made.add_argument(
        "--output", type=directory, default="runs", metavar="DIR", help="of the search (default runs)"
    )
    made.add_argument("--name", "--study", metavar="STUDY", help="default: every study of the output")
    made.add_argument("--storage", metavar="URL", help="of Optuna (default: optuna.db in the output)")
    made.add_argument("--tracking-uri", metavar="URI", help="of MLflow (default: where the search wrote)")
    return made


if __name__ == "__main__":
    sys.exit(main())
