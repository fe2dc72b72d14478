"""One search: prepares data and teacher, asks and tells Optuna, lets Ray Tune run the trials, and sums up.

Everything of value is on disk before it is said: the study in Optuna's storage, models and measurements below
`<output>/<study>/trials/`. Running the same command again does what is still to be done, and nothing twice.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

import search_spaces
from cofi_tune import (
    chains,
    cluster,
    connection,
    jobs,
    memory,
    optuna_study,
    outbox,
    points,
    preflight,
    shared,
    study_files,
    summary,
    teaching,
    trial,
    warm_start,
    worker,
)
from cofi_tune.budget import Budget
from cofi_tune.components import pretrained
from cofi_tune.config import StudyConfig, TrialConfig
from cofi_tune.data.encode import EncodedTask, encode
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from cofi_tune.interruption import Interruption, signals
from cofi_tune.lock import only_driver, refuse_elsewhere
from cofi_tune.outbox import Outbox
from cofi_tune.passwords import without_password
from cofi_tune.progress import Lines
from cofi_tune.proposals import Proposals
from cofi_tune.purpose import purpose, same_teacher, study_tags
from cofi_tune.ray_session import ray_started
from cofi_tune.records import INTERRUPTED, Stopped
from cofi_tune.storage import database_errors, only_driver_anywhere
from cofi_tune.tidy import Tidy
from cofi_tune.tracking import Tracking

Launch = Callable[[StudyConfig, Proposals, Interruption], None]


class Interrupted(Exception):  # noqa: N818
    """The user stopped the search; what was finished is kept."""


def run(
    config: StudyConfig,
    task: Task,
    source: Source,
    watch: Lines,
    *,
    address: str | None = None,
    launch: Launch | None = None,
) -> dict[str, Any]:
    """Search until as many trials are finished as were asked for.

    Args:
        config: what to search.
        task: whose rows.
        source: where they are.
        watch: what the user sees.
        address: of a Ray cluster; None: a Ray of our own on this machine.
        launch: runs what is proposed; None: Ray Tune does.

    Returns:
        `analysis.pareto.summary` of all finished trials of the study, with `counts` by state and reason.

    Raises:
        DataError: the rows or the tokenizer cannot be used.
        OtherPurpose: the study exists and was made for something else.
        ValueError: the model or the teacher cannot be used, or another search of this name is running.
        OSError: the disk is full, or no trial can start.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    worker.quiet_libraries()
    config.directory.mkdir(parents=True, exist_ok=True)
    stop_file = config.directory.absolute() / f".stop-{uuid.uuid4().hex[:12]}"
    stopper = Interruption(stop_file, watch.note, config.command)
    with (
        only_driver(config.directory, config.name, watch.note),
        preflight.marked(config.directory),
        signals(stopper),
        database_errors(),
        contextlib.ExitStack() as closing,
    ):
        preflight.clear(config.directory, watch.note)
        if config.mirror is not None and address is not None:
            shown = study_files.stop_file_shown(config.mirror, stopper.stop_file)
            stopper.asked = closing.enter_context(shown)
        closing.callback(stopper.stop_file.unlink, missing_ok=True)
        return _run(config, task, source, watch, address, launch, stopper, closing)


def _run(
    config: StudyConfig,
    task: Task,
    source: Source,
    watch: Lines,
    address: str | None,
    launch: Launch | None,
    stopper: Interruption,
    closing: contextlib.ExitStack,
) -> dict[str, Any]:
    data = encode(task, source, _tokenizer(config), config.output / "data", config.max_train_samples)
    watch.note(_describe(data))
    if config.mirror is not None and data.directory.name not in config.mirror.names(config.output / "data"):
        config.mirror.put(data.directory)
    study = optuna_study.open_study(config.storage, config.name, purpose(config, data))
    closing.enter_context(only_driver_anywhere(config.storage, config.name, study.user_attrs["uid"]))
    elsewhere = refuse_elsewhere(study, config.directory)
    unkept: set[str] = set()
    if config.mirror is not None:
        ids = [asked.trial_id for asked, _ in optuna_study.all_trials(study)]
        unkept = study_files.get_study(config.mirror, config.directory, ids, elsewhere)
    preflight.known(config.directory, {optuna_study.trial_id_of(config.name, t.number) for t in study.trials})
    unfinished = optuna_study.settle(study)
    done = optuna_study.finished(study)
    num_done = optuna_study.num_run(done)
    if num_done or unfinished:
        watch.note(f"going on: {num_done} trials are finished, {len(unfinished)} were interrupted")
    box = closing.enter_context(_outbox(config, study, data, watch))
    box.replay((one.asked, one.outcome, one.ended_ms) for one in done)
    tidy = Tidy(config.directory / "trials")
    watchers = [watch, box, tidy]
    if config.mirror is not None:
        files = study_files.StudyFiles(config.mirror, config.directory / "trials", stopper.request)
        watchers = [watch, files, box, tidy]  # MLflow is told of what is here by then
        for one in done:
            if one.asked.trial_id in unkept:
                files.started(one.asked)
                files.ended(one.asked.trial_id, one.outcome)
    for one in done:
        tidy.started(one.asked)
        tidy.ended(one.asked.trial_id, one.outcome)
    budget = Budget(config.trials - num_done, config.time_budget_seconds, config.gpu_hours, config.trials)
    if (ended_by := budget.spent()) is None:
        with contextlib.ExitStack() as ray:
            remote = config.device != "cpu" or address is not None
            if remote:
                ray.enter_context(ray_started(config, address))
                stopper.listen()
            if address is not None and config.mirror is None:
                shared.refuse_unshared(config.output)
            there = cluster.ask() if address is not None else None
            config = config if there is None else cluster.fitted(config, there, watch.note)
            timing = cluster.where_timed(config, there, watch.note)
            taught = _teacher(config, data, watch, remote, stopper)
            same_teacher(study, taught)
            each = memory.worker_bytes(config, taught, data.splits["train"].lengths, _batch_size(config))
            room = None
            if there is None:
                room = memory.Room(memory.trial_bytes(config, each), config.concurrency, watch.note)
            else:
                config = cluster.fitted_to_memory(config, there, each, watch.note)
            preflight.room(config.output, preflight.model_bytes(taught), budget.trials, config.concurrency)
            space = search_spaces.load(config.space, config.task).space
            space = chains.at(space, config.chain[0]) if config.chain else space
            warm_start.add(study, config.storage, config.warm_start, space, watch.note)
            asked = _proposals(
                config, study, task, data, taught, timing, budget, stopper, watchers, unfinished, room
            )
            _search(config, asked, launch or functools.partial(trial.launch, address=address), stopper)
            ended_by = asked.ended_by
    return _sum_up(config, study, box) | {"ended_by": ended_by}


def _proposals(
    config: StudyConfig,
    study: optuna.Study,
    task: Task,
    data: EncodedTask,
    taught: Path,
    timing: cluster.Timing,
    budget: Budget,
    stopper: Interruption,
    watchers: list[Any],
    unfinished: list[optuna.Trial],
    room: memory.Room | None = None,
) -> Proposals:
    space = search_spaces.load(config.space, config.task)

    own_points = chains.without_target(space.points) if config.chain else space.points
    return Proposals(
        study,
        space.space,
        jobs.preparing(config, task, data, taught, timing, stopper.stop_file),
        lambda number: optuna_study.sampler(
            config.sampler, config.seed, number, config.trials, len(config.chain) or 1
        ),
        budget,
        watchers,
        unfinished,
        points.still_to_propose(study, [*config.enqueue, *own_points]),
        config.gpus_per_trial,
        stopper,
        config.chain,
        room,
    )


def _search(config: StudyConfig, asked: Proposals, launch: Launch, stopper: Interruption) -> None:
    """Launch, and see to it that every trial that was asked has an end."""
    stopper.running = asked.on_their_way
    if stopper.requested:
        raise Interrupted
    try:
        launch(config, asked, stopper)
    finally:
        asked.leave("the search was stopped")
    if stopper.blocked is not None:
        raise OSError(stopper.blocked)
    if stopper.requested:
        raise Interrupted


def _batch_size(config: StudyConfig) -> int:
    """The largest that the study's trials have."""
    space = search_spaces.load(config.space, config.task).space
    return points.largest(space, "batch_size", TrialConfig().batch_size)


def _teacher(
    config: StudyConfig, data: EncodedTask, watch: Lines, remote: bool, stopper: Interruption
) -> Path:
    try:
        return teaching.made(config, data, watch.teaching, remote, stopper)
    except Stopped as stopped:
        if stopped.reason == INTERRUPTED:
            raise Interrupted from None
        raise


def _tokenizer(config: StudyConfig) -> str | None:
    return config.tokenizer or config.teacher or pretrained.tokenizer_of(config.model)


def _describe(data: EncodedTask) -> str:
    rows = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    return f"task {data.task.name}: {rows} rows, {data.source}"


def _outbox(config: StudyConfig, study: optuna.Study, data: EncodedTask, watch: Lines) -> Outbox:
    """The way to MLflow; the study remembers it, for `cofi_tune.sync`."""
    uri = connection.absolute(config.tracking_uri)
    plain = without_password(uri)
    tags = study_tags(config, study, data)
    # The default is not remembered: it goes where the output goes.
    kept = None if uri == outbox.default_tracking(config.output) else plain
    study.set_user_attr("tracking", {"uri": kept, "password": plain != uri, "tags": tags})
    artifacts = None if config.mirror is None else config.mirror.artifacts(uri)
    tracking = Tracking(uri, config.name, study.user_attrs["uid"], tags, config.output, artifacts)
    command = outbox.sync_command(config.output, config.name, config.storage, uri)
    return Outbox(tracking, watch.note, command)


def _sum_up(config: StudyConfig, study: optuna.Study, box: Outbox) -> dict[str, Any]:
    """Write front and report, bring MLflow up to date, and return what was found."""
    found, paths = summary.write(
        study, box.tracking.common, config.output, place=config.place, with_pages=config.report
    )
    if config.mirror is not None:
        for path in paths:
            config.mirror.put(path)
    box.summarise(paths, summary.metrics(found))
    box.close()
    command = outbox.ui_command(config.output, config.name, config.storage, box.tracking.uri)
    return found | {
        "comparison": box.tracking.comparison(),
        "ui_command": None if box.tracking.is_served else command,
    }
