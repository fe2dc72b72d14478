"""One search: prepares data and teacher, asks and tells Optuna, lets Ray Tune run the trials, and sums up.

Everything of value is on disk before it is said: the study in Optuna's storage, models and measurements below
`<output>/<study>/trials/`. Running the same command again does what is still to be done, and nothing twice.
"""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import torch

import cofi_tune
import search_spaces
from cofi_tune import connection, fields, methods, optuna_study, outbox, summary, teacher, trial, worker
from cofi_tune.components import pretrained
from cofi_tune.config import Setup, StudyConfig, TrialConfig, build
from cofi_tune.data.encode import EncodedTask, encode
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from cofi_tune.machine import this_machine
from cofi_tune.outbox import Outbox
from cofi_tune.progress import Lines
from cofi_tune.proposals import Proposals
from cofi_tune.records import OBJECTIVES, SCENARIOS
from cofi_tune.tracking import Tracking

Launch = Callable[[StudyConfig, Proposals, trial.Interruption], None]


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
        ValueError: the model or the teacher cannot be used.
        Interrupted: by Ctrl-C or SIGTERM.
    """
    worker.quiet_libraries()
    config.directory.mkdir(parents=True, exist_ok=True)
    with optuna_study.only_driver(config.directory, config.name), contextlib.ExitStack() as closing:
        return _run(config, task, source, watch, address, launch, closing)


def _run(
    config: StudyConfig,
    task: Task,
    source: Source,
    watch: Lines,
    address: str | None,
    launch: Launch | None,
    closing: contextlib.ExitStack,
) -> dict[str, Any]:
    data = encode(task, source, _tokenizer(config), config.output / "data", config.max_train_samples)
    watch.note(_describe(data))
    study = optuna_study.open_study(config.storage, config.name, purpose(config, data))
    unfinished = optuna_study.settle(study)
    done = optuna_study.finished(study)
    if done or unfinished:
        watch.note(f"going on: {len(done)} trials are finished, {len(unfinished)} were interrupted")
    box = closing.enter_context(_outbox(config, study, watch))
    box.replay((one.asked, one.outcome, one.ended_ms) for one in done)
    if len(done) < config.trials:
        with contextlib.ExitStack() as ray:
            remote = config.device != "cpu" or address is not None
            if remote:
                ray.enter_context(trial.ray_started(config, address))
            taught = _teacher(config, data, watch, remote)
            _same_teacher(study, taught)
            left = config.trials - len(done)
            asked = _proposals(config, study, data, taught, left, [watch, box], unfinished)
            _search(config, asked, launch or functools.partial(trial.launch, address=address), watch)
    return _sum_up(config, task, study, box)


def purpose(config: StudyConfig, data: EncodedTask) -> dict[str, Any]:
    """What all trials of a study have in common, without which they could not be compared."""
    space = search_spaces.load(config.space)
    return {
        "task": config.task,
        "data": data.content_hash[:16],
        "tokens": data.directory.name,
        "max_train_samples": config.max_train_samples,
        "model": Path(config.model).name if Path(config.model).is_dir() else config.model,
        "teacher_given": config.teacher is not None,
        "teacher_epochs": config.teacher_epochs,
        "epochs": config.epochs,
        "space": f"{space.name} {space.digest}",
        "objectives": [f"{objective.direction} {objective.name}" for objective in OBJECTIVES],
        "scenario": config.scenario,
        "selection": config.selection,
        "seed": config.seed,
        "device": config.device,
        "threads": config.cpus_per_worker if config.device == "cpu" else None,
        "code": cofi_tune.__version__,
    }


def settings(config: TrialConfig) -> dict[str, Any]:
    """Every setting of a run by name, the method's under `<method>/`, defaults filled in.

    Raises:
        ValueError: options that the method does not know, or out of its range.
    """
    options = build(methods.load(config.method).Config, config.options)
    own = config.model_dump(exclude={"options"})
    return own | {f"{config.method}/{name}": value for name, value in options.model_dump(mode="json").items()}


def _proposals(
    config: StudyConfig,
    study: optuna.Study,
    data: EncodedTask,
    taught: Path,
    budget: int,
    watchers: list[Any],
    unfinished: list[optuna.Trial],
) -> Proposals:
    space = search_spaces.load(config.space)
    for point in space.points[: config.trials]:
        study.enqueue_trial(dict(point), skip_if_exists=True)

    def prepare(trial_id: str, proposal: Mapping[str, Any]) -> tuple[worker.Job, dict[str, Any]]:
        own = TrialConfig.from_proposal(
            proposal, base_learning_rate=config.base_learning_rate, epochs=config.epochs, seed=config.seed
        )
        return worker.Job(trial_id, own, _setup(config, data, taught, trial_id)), settings(own)

    return Proposals(
        study,
        space.space,
        prepare,
        lambda number: optuna_study.sampler(config.sampler, config.seed, number, config.trials),
        budget,
        watchers,
        unfinished,
    )


def _setup(config: StudyConfig, data: EncodedTask, taught: Path, trial_id: str) -> Setup:
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
    )


def _search(config: StudyConfig, asked: Proposals, launch: Launch, watch: Lines) -> None:
    """Launch, and see to it that every trial that was asked has an end."""
    stopper = trial.Interruption()
    try:
        with _signals(stopper, watch):
            launch(config, asked, stopper)
    finally:
        asked.leave("the search was stopped")
    if stopper.requested:
        raise Interrupted


@contextlib.contextmanager
def _signals(stopper: trial.Interruption, watch: Lines) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) ends the search in order, the second at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: FrameType | None) -> None:
        stopper.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        name = signal.Signals(number).name
        watch.note(f"stopping on {name}; what is finished is kept (Ctrl-C again to leave at once)")

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _teacher(config: StudyConfig, data: EncodedTask, watch: Lines, remote: bool) -> Path:
    if remote and config.teacher is None:
        return trial.teacher_elsewhere(config, data.directory, watch.teaching)
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
    )


def _same_teacher(study: optuna.Study, taught: Path) -> None:
    before = study.user_attrs.get("teacher")
    if before is None:
        study.set_user_attr("teacher", taught.name)
    elif before != taught.name:
        raise optuna_study.OtherPurpose(
            f"the study {study.study_name!r} was made with the teacher {before}, now it is {taught.name}; "
            "give this one another --name"
        )


def _tokenizer(config: StudyConfig) -> str | None:
    return config.tokenizer or config.teacher or pretrained.tokenizer_of(config.model)


def _describe(data: EncodedTask) -> str:
    rows = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    return f"task {data.task.name}: {rows} rows, {data.source}"


def _outbox(config: StudyConfig, study: optuna.Study, watch: Lines) -> Outbox:
    """The way to MLflow; the study remembers it, for `cofi_tune.sync`."""
    tags = {
        "cofi.task": config.task,
        "cofi.space": config.space,
        "cofi.model": config.model,
        "cofi.data": study.user_attrs["purpose"]["data"],
        "cofi.device": config.device,
        "cofi.scenario": config.scenario,
        **fields.versions(),
    }
    uri = connection.absolute(config.tracking_uri)
    plain = connection.without_password(uri)
    study.set_user_attr("tracking", {"uri": plain, "password": plain != uri, "tags": tags})
    tracking = Tracking(uri, config.name, study.user_attrs["uid"], tags, config.output)
    command = outbox.sync_command(config.output, config.name, config.storage, uri)
    return Outbox(tracking, watch.note, command)


def _sum_up(config: StudyConfig, task: Task, study: optuna.Study, box: Outbox) -> dict[str, Any]:
    """Write the front, bring MLflow up to date, and return what was found."""
    document = summary.of(
        [(one.asked.trial_id, one.outcome) for one in optuna_study.finished(study)],
        study=config.name,
        task=config.task,
        metric=task.metric,
        scenario=config.scenario,
    )
    texts = summary.files(document)
    for name, text in texts.items():
        (config.directory / name).write_text(text, encoding="utf-8")
    box.summarise(texts, summary.metrics(document))
    box.close()
    tracking = box.tracking
    return document | {"comparison": tracking.comparison(), "server_command": tracking.server_command()}
