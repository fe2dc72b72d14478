"""Ray Tune's side of a trial: gives every trial its resources, and frees them whatever happens.

With `workers_per_trial` 0 a trial runs in the process of its Tune actor, and the next one in it too. With 1
or more it builds a `TorchTrainer`, whose worker processes run `worker.in_train`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ray
from ray import tune

from cofi_tune.cluster import DRIVER, DRIVER_SHARE, needs
from cofi_tune.config import StudyConfig
from cofi_tune.interruption import Interruption, Starvation
from cofi_tune.memory_kills import recover_from_kills
from cofi_tune.messages import KEY, LOST, Message, Outcome, encode
from cofi_tune.ray_session import ENVIRONMENT, own_ray_died, ray_started
from cofi_tune.study_files import Seldom
from cofi_tune.watchdog import START_SECONDS, GroupWatchdog
from cofi_tune.worker import Job, attempt, in_train, in_tune, outcome_of
from cofi_tune.worker_groups import GroupSweeper

MOST_ATTEMPTS = 16
"""Of a trial, whatever it does; `attempts.py` gives up one that does not get on, long before."""


def launch(config: StudyConfig, proposals: Any, stopper: Interruption, address: str | None = None) -> None:
    """Let Ray Tune run what `proposals` (a `ray.tune.search.Searcher`) suggests, until it has no more.

    Args:
        config: the study's.
        proposals: asks for trials and is told how they end.
        stopper: ends everything before its time.
        address: of a Ray cluster; None: a Ray of our own.
    """
    in_process = config.workers_per_trial == 0
    limit = max(config.timeout_seconds, START_SECONDS)
    begun = Seldom(config.mirror).has_begun
    starvation = Starvation(stopper, config.directory / "trials", limit, needs(config), begun)
    stopper.look = starvation.look
    scratch = _scratch(config, address)
    sweeping = GroupSweeper(proposals.recovered)
    recover_from_kills()
    with ray_started(config, address), _removed(config, address), sweeping as sweeper:
        stopper.listen()
        tuner = tune.Tuner(
            _trainable(config, scratch),
            tune_config=tune.TuneConfig(
                search_alg=proposals,
                num_samples=max(1, proposals.budget.trials),
                max_concurrent_trials=config.concurrency,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
                # Starting a process costs 5 s, a trial in a running one 0.5. With Ray Train it would hang.
                reuse_actors=in_process,
            ),
            run_config=tune.RunConfig(
                name=config.name,
                storage_path=scratch,
                callbacks=[sweeper],
                failure_config=tune.FailureConfig(max_failures=MOST_ATTEMPTS),
                stop=stopper,
                verbose=0,
            ),
        )
        with stopper.leaving_when(own_ray_died):
            tuner.fit()


def _scratch(config: StudyConfig, address: str | None) -> str:
    """Where Tune and Train keep their own files, of no use to anybody: all nodes must be able to reach it."""
    here = (config.directory / ".ray" / str(os.getpid())).absolute()
    return str(here) if config.mirror is None or address is None else config.mirror.url(here)


@contextlib.contextmanager
def _removed(config: StudyConfig, address: str | None) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(config.directory / ".ray", ignore_errors=True)
        if config.mirror is not None and address is not None:
            with contextlib.suppress(OSError):
                config.mirror.drop(config.directory / ".ray")


def _trainable(config: StudyConfig, scratch: str) -> Any:
    if config.workers_per_trial == 0:
        resources = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
        return tune.with_resources(in_tune, resources)
    scaling = {
        "num_workers": config.workers_per_trial,
        "use_gpu": config.gpus_per_worker > 0,
        "resources_per_worker": {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker},
    }
    storage = f"{scratch}/train"
    waits_on = DRIVER if DRIVER in ray.cluster_resources() else "CPU"
    return tune.with_resources(
        tune.with_parameters(with_train, scaling=scaling, storage=storage), {waits_on: DRIVER_SHARE}
    )


def with_train(config: dict[str, Any], scaling: dict[str, Any], storage: str) -> None:
    """Runs a trial by workers of Ray Train, and passes their reports on.

    Args:
        config: the trial's, as proposed.
        scaling: of the `TorchTrainer`.
        storage: a directory that all nodes see, for Ray Train's own files.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    job: Job = config["job"]
    given_up = attempt(job)
    if given_up is not None:
        tune.report({KEY: encode(Message(given_up))})
        return
    elsewhere = Seldom(job.setup.mirror).sign
    with GroupWatchdog(job.setup.output, job.setup.timeout_seconds, elsewhere):
        outcome = _fit(job, scaling, storage)
        if outcome is not None and outcome.reason == "out_of_memory":
            outcome = _fit(replace(job, parts=2), scaling, storage)
    if outcome is not None:
        tune.report({KEY: encode(Message(outcome))})


def _fit(job: Job, scaling: dict[str, Any], storage: str) -> Outcome | None:
    """One group of workers, from its start to its end.

    Returns:
        None if the workers said themselves how it ended.

    Raises:
        Exception: a process was lost; Tune tries again.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from cofi_tune.group_reports import GroupReports
    from cofi_tune.process_group import OwnMeeting

    reports = GroupReports()
    trainer = TorchTrainer(
        in_train,
        train_loop_config={"job": job},
        torch_config=OwnMeeting(),
        scaling_config=ScalingConfig(**scaling),
        run_config=RunConfig(
            # Another name for every attempt: what Ray Train would bring back of the last one is not ours.
            name=f"{job.trial_id}-{uuid.uuid4().hex[:8]}",
            storage_path=storage,
            callbacks=[reports],
            # A lost process goes up to Tune, and to `attempts.py`. A node whose end was announced is no
            # failure: the group is built again, here, as often as that happens.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=-1),
        ),
    )
    try:
        reports.pass_on(trainer)
        return None
    except Exception as error:
        outcome = _outcome_of_group(error)
        if outcome.reason != LOST:
            return outcome
        (job.setup.output / "error.txt").write_text(traceback.format_exc())
        raise


def _outcome_of_group(error: Exception) -> Outcome:
    """What the failure of a worker group makes of its trial: the workers' own error, or a lost process."""
    failures = [*getattr(error, "worker_failures", {}).values()] or [error]
    if any(_is_rays(failure) or _lost_its_peer(failure) for failure in failures):
        return Outcome.failed(LOST, str(failures[0]))
    outcomes = [outcome_of(failure) for failure in failures]
    return next((o for o in outcomes if o.reason == "out_of_memory"), outcomes[0])


def _is_rays(error: Exception) -> bool:
    """Whether an exception tells of processes and nodes, and not of what ran in them."""
    return type(error).__module__.split(".")[0] == "ray"


def _lost_its_peer(error: Exception) -> bool:
    """Whether a worker failed because another one was gone, as gloo and NCCL put it."""
    text = str(error).lower()
    return any(words in text for words in ("connection closed by peer", "connection reset", "broken pipe"))


def _name(trial: Any) -> str:
    """The stable id, in place of Tune's own."""
    return str(trial.config["trial_id"])
