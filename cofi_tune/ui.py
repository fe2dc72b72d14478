"""The command `python -m cofi_tune.ui`: an output's studies in MLflow, for this machine alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna

from cofi_tune import connection, outbox, server, studies
from cofi_tune.ctrl_c import closed_terminal_is_ctrl_c, sigterm_is_ctrl_c
from cofi_tune.data.arguments import Parser, directory, positive
from cofi_tune.database import sqlite_file
from cofi_tune.passwords import without_password
from cofi_tune.terminal import ENVIRONMENT_EXIT, INTERRUPTED_EXIT, USAGE_EXIT, fail, say
from cofi_tune.tracking import TRAINING_PAGES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until Ctrl-C.

    Returns:
        The exit status: 0; 2 for wrong flags, 4 if MLflow or a database cannot be used, 130 if it was
        interrupted before anything was shown.
    """
    args = _parser().parse_args(argv)
    try:
        sigterm_is_ctrl_c()
        closed_terminal_is_ctrl_c()
        return _command(args)
    except ValueError as error:
        return fail(error, USAGE_EXIT)
    except (studies.Unreachable, server.Ended) as error:
        return fail(error, ENVIRONMENT_EXIT)
    except KeyboardInterrupt:
        return fail("interrupted", INTERRUPTED_EXIT)


def _command(args: argparse.Namespace) -> int:
    output = Path(args.output)
    found = _found(output, args.storage, args.name)
    tracking = studies.tracking(found[0], output, args.tracking_uri)
    uri = connection.absolute(tracking.uri)
    remedy = "correct --tracking-uri" if args.tracking_uri else f"run {_sync_command(found[0], args, uri)}"
    _check(uri, remedy)
    if tracking.is_served:
        _show(found, args, uri, without_password(uri.rstrip("/")))
        return 0
    port = server.free_port(args.port)
    if args.port is None and port != server.FIRST_PORT:
        say(f"port {server.FIRST_PORT} is taken; {port} instead")
    say("starting MLflow's server, which takes some seconds")
    with server.serving(uri, output / "mlartifacts", port) as running:
        running.until_it_answers()
        try:
            _show(found, args, uri, running.address)
            say("Ctrl-C ends it")
            running.until_it_ends()
        except KeyboardInterrupt:
            pass  # what was asked for is done
    return 0


def _found(output: Path, storage: str | None, name: str | None) -> list[optuna.Study]:
    """The studies of the output, the latest first, and before it the one of that name.

    Raises:
        Unreachable: the database cannot be used.
        ValueError: there is none, or none of that name.
    """
    ours = studies.in_database(output, storage)
    first = None if name is None else studies.named(ours, output, name)
    found = sorted(studies.of_output(ours, output), key=studies.last_start, reverse=True)
    if not found:
        raise ValueError(f"--output {output}: no study has its files here")
    return found if first is None else [first, *(study for study in found if study is not first)]


def _check(uri: str, remedy: str) -> None:
    """See that MLflow can be used before a server is started; `remedy`: for a database that is not there.

    Raises:
        Unreachable: it cannot.
        ValueError: there is no such database.
    """
    path = sqlite_file(uri)
    if path is not None and not path.is_file():
        raise ValueError(f"MLflow has no database {path}; {remedy}")
    try:
        connection.connect(uri).search_experiments(max_results=1)
    except Exception as error:  # MLflow's clients, drivers and servers have one each
        raise studies.Unreachable(f"MLflow cannot be used: {connection.explain(error, uri)}") from error


def _show(found: Sequence[optuna.Study], args: argparse.Namespace, uri: str, address: str) -> None:
    say(f"MLflow: {address}/#/experiments?{TRAINING_PAGES}")
    for study in found:
        say(f"{study.study_name}: {_where(study, args, uri, address)}")


def _where(study: optuna.Study, args: argparse.Namespace, uri: str, address: str) -> str:
    """The page that compares the study's trials, or why there is none."""
    output, name = Path(args.output), study.study_name
    remembered = (study.user_attrs.get("tracking") or {}).get("uri") or outbox.default_tracking(output)
    if args.tracking_uri is None and connection.absolute(remembered) != uri:
        return f"its MLflow is another one ({remembered}); --name {name} shows it"
    tracking = studies.tracking(study, output, uri)
    try:
        tracking.look()
    except Exception as error:  # as above; the others may be shown
        return connection.explain(error, uri)
    command = _sync_command(study, args, uri)
    return tracking.comparison(address) or f"no trial is in MLflow yet; to write those that ended: {command}"


def _sync_command(study: optuna.Study, args: argparse.Namespace, uri: str) -> str:
    output = Path(args.output)
    return outbox.sync_command(output, study.study_name, args.storage or outbox.default_storage(output), uri)


def _port(text: str) -> int:
    number = positive(text)
    if number > server.LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text} is above {server.LAST_PORT}, the last port")
    return number


def _parser() -> Parser:
    made = Parser(
        prog="python -m cofi_tune.ui",
        description="Show the studies of an output in MLflow, in a browser on this machine, until Ctrl-C.",
    )
    made.add_argument(
        "--output", type=directory, default="runs", metavar="DIR", help="of the search (default runs)"
    )
    made.add_argument("--name", "--study", metavar="STUDY", help="which comes first (default: the latest)")
    free = f"default: the first free one from {server.FIRST_PORT}"
    made.add_argument("--port", type=_port, metavar="N", help=free)
    made.add_argument("--storage", metavar="URL", help="of Optuna (default: optuna.db in the output)")
    made.add_argument("--tracking-uri", metavar="URI", help="of MLflow (default: where the search wrote)")
    return made


if __name__ == "__main__":
    sys.exit(main())
