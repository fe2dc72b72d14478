"""One search: prepares data and teacher, asks and tells Optuna, lets Ray Tune run the trials, and sums up.

Everything of value is on disk before it is said: the study in Optuna's storage, models and measurements below
`<output>/<study>/trials/`. Running the same command again does what is still to be done, and nothing twice.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch

import search_spaces
from cofi_tune import (
    commands,
    connection,
    optuna_study,
    outbox,
    points,
    preflight,
    summary,
    teacher,
    trial,
    warm_start,
    worker,
)
from cofi_tune.budget import Budget
from cofi_tune.components import pretrained
from cofi_tune.config import Setup, StudyConfig, TrialConfig
from cofi_tune.data.encode import EncodedTask, encode
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from cofi_tune.interruption import Interruption, signals
from cofi_tune.lock import only_driver, refuse_elsewhere
from cofi_tune.machine import this_machine
from cofi_tune.outbox import Outbox
from cofi_tune.passwords import without_password
from cofi_tune.progress import Lines
from cofi_tune.proposals import Proposals
from cofi_tune.purpose import purpose, same_teacher, study_tags
from cofi_tune.records import INTERRUPTED, SCENARIOS, Stopped
from cofi_tune.resumable import Upkeep
from cofi_tune.storage import database_errors
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
    stopper = Interruption(config.directory.absolute() / f".stop-{uuid.uuid4().hex[:12]}", watch.note)
    with (
        only_driver(config.directory, config.name, watch.note),
        preflight.marked(config.directory),
        signals(stopper),
        contextlib.ExitStack() as closing,
    ):
        preflight.clear(config.directory, watch.note)
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
    study = optuna_study.open_study(config.storage, config.name, purpose(config, data))
    refuse_elsewhere(study, config.directory)
    preflight.known(config.directory, {optuna_study.trial_id_of(config.name, t.number) for t in study.trials})
    unfinished = optuna_study.settle(study)
    done = optuna_study.finished(study)
    num_done = optuna_study.num_run(done)
    if num_done or unfinished:
        watch.note(f"going on: {num_done} trials are finished, {len(unfinished)} were interrupted")
    box = closing.enter_context(_outbox(config, study, data, watch))
    box.replay((one.asked, one.outcome, one.ended_ms) for one in done)
    tidy = Tidy(config.directory / "trials")
    for one in done:
        tidy.ended(one.asked.trial_id, one.outcome)
    budget = Budget(config.trials - num_done, config.time_budget_seconds, config.gpu_hours, config.trials)
    ended_by = budget.spent()
    if ended_by is None:
        with contextlib.ExitStack() as ray:
            remote = config.device != "cpu" or address is not None
            if remote:
                ray.enter_context(trial.ray_started(config, address))
                stopper.listen()
            taught = _teacher(config, data, watch, remote, stopper)
            same_teacher(study, taught)
            preflight.room(config.output, _model_bytes(taught), budget.trials, config.concurrency)
            space = search_spaces.load(config.space, config.task).space
            warm_start.add(study, config.storage, config.warm_start, space, watch.note)
            asked = _proposals(
                config, study, task, data, taught, budget, stopper, [watch, box, tidy], unfinished
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
    budget: Budget,
    stopper: Interruption,
    watchers: list[Any],
    unfinished: list[optuna.Trial],
) -> Proposals:
    space = search_spaces.load(config.space, config.task)

    def prepare(trial_id: str, proposal: Mapping[str, Any]) -> tuple[worker.Job, dict[str, Any], str]:
        own = TrialConfig.from_proposal(
            proposal, base_learning_rate=config.base_learning_rate, epochs=config.epochs, seed=config.seed
        )
        setup = _setup(config, data, taught, trial_id, stopper.stop_file)
        again = commands.reproduce(config, task, taught, trial_id, own)
        return worker.Job(trial_id, own, setup), commands.settings_of(own), again

    return Proposals(
        study,
        space.space,
        prepare,
        lambda number: optuna_study.sampler(config.sampler, config.seed, number, config.trials),
        budget,
        watchers,
        unfinished,
        points.still_to_propose(study, [*config.enqueue, *space.points]),
        config.gpus_per_trial,
        stopper,
    )


def _setup(config: StudyConfig, data: EncodedTask, taught: Path, trial_id: str, stop_file: Path) -> Setup:
    return Setup(
        data=data.directory,
        teacher=taught.absolute(),
        output=(config.directory / "trials" / trial_id).absolute(),
        pretrained=config.model,
        device=config.device,
        num_threads=config.cpus_per_worker,
        scenario=config.scenario,
        scenarios=SCENARIOS if config.reference_protocol else SCENARIOS[:2],
        selection=config.selection,
        model_seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
        timeout_seconds=config.timeout_seconds,
        stop_file=stop_file,
    )


def _search(config: StudyConfig, asked: Proposals, launch: Launch, stopper: Interruption) -> None:
    """Launch, and see to it that every trial that was asked has an end."""
    stopper.running = asked.on_their_way
    if stopper.requested:
        raise Interrupted
    try:
        with database_errors():
            launch(config, asked, stopper)
    finally:
        asked.leave("the search was stopped")
    if stopper.blocked is not None:
        raise OSError(stopper.blocked)
    if stopper.requested:
        raise Interrupted


def _model_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("*.safetensors"))


def _teacher(
    config: StudyConfig, data: EncodedTask, watch: Lines, remote: bool, stopper: Interruption
) -> Path:
    try:
        if remote and config.teacher is None:
            return trial.teacher_elsewhere(config, data.directory, stopper.stop_file, watch.teaching)
        torch.set_num_threads(this_machine().cpus)
        return teacher.prepare(
            data,
            config.model,
            config.output,
            epochs=config.teacher_epochs,
            given=config.teacher,
            seed=config.seed,
            selection=data.selection_split(config.selection),
            on_progress=watch.teaching,
            upkeep=Upkeep(config.checkpoint_seconds, lambda: stopper.requested),
        )
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
    tracking = Tracking(uri, config.name, study.user_attrs["uid"], tags, config.output)
    command = outbox.sync_command(config.output, config.name, config.storage, uri)
    return Outbox(tracking, watch.note, command)


def _sum_up(config: StudyConfig, study: optuna.Study, box: Outbox) -> dict[str, Any]:
    """Write front and report, bring MLflow up to date, and return what was found."""
    found, paths = summary.write(study, box.tracking.common, config.output, with_pages=config.report)
    box.summarise(paths, summary.metrics(found))
    box.close()
    tracking = box.tracking
    command = outbox.ui_command(config.output, config.name, config.storage, tracking.uri)
    return found | {
        "comparison": tracking.comparison(),
        "ui_command": None if tracking.is_served else command,
    }
