"""From a proposal to what a worker is told: the run's configuration, and where everything is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cofi_tune import commands, timed, worker
from cofi_tune.cluster import Timing
from cofi_tune.config import Setup, StudyConfig, TeacherCache, TrialConfig
from cofi_tune.data.encode import EncodedTask
from cofi_tune.data.task import Task
from cofi_tune.messages import Link
from cofi_tune.records import SCENARIOS

Prepare = Callable[[str, Mapping[str, Any], Link | None], tuple[worker.Job, dict[str, Any], str]]


def preparing(
    config: StudyConfig, task: Task, data: EncodedTask, taught: Path, timing: Timing, stop_file: Path
) -> Prepare:
    """What makes jobs of a study's proposals; see `proposals.Prepare`.

    Args:
        config: the study's.
        task: whose rows.
        data: the same, encoded.
        taught: directory of the teacher.
        timing: where models are timed.
        stop_file: of this driver.
    """

    def prepare(
        trial_id: str, proposal: Mapping[str, Any], link: Link | None
    ) -> tuple[worker.Job, dict[str, Any], str]:
        first = TrialConfig.from_proposal(
            proposal, base_learning_rate=config.base_learning_rate, epochs=config.epochs, seed=config.seed
        )
        targets = link.targets if link else ()
        own = first.links(targets, config.chain_epochs)[-1]
        setup = _setup(config, data, taught, timing, trial_id, stop_file, link)
        again = commands.reproduce(config, task, taught, trial_id, first, targets)
        return worker.Job(trial_id, own, setup), commands.settings_of(own), again

    return prepare


def _setup(
    config: StudyConfig,
    data: EncodedTask,
    taught: Path,
    timing: Timing,
    trial_id: str,
    stop_file: Path,
    link: Link | None,
) -> Setup:
    trials = (config.directory / "trials").absolute()
    return Setup(
        data=data.directory,
        teacher=taught.absolute(),
        output=trials / trial_id,
        parent=trials / link.parent if link and link.parent else None,
        hands_on=link is not None and not link.is_last,
        mirror=config.mirror,
        pretrained=config.model,
        device=config.device,
        num_threads=config.cpus_per_worker,
        scenario=config.scenario,
        scenarios=SCENARIOS if config.reference_protocol else SCENARIOS[:2],
        selection=config.selection,
        model_seed=config.seed,
        precision=config.precision,
        shrink=config.shrink,
        timing=timing,
        timed=None if config.time_each else (config.directory / timed.DIRECTORY).absolute(),
        checkpoint_seconds=config.checkpoint_seconds,
        timeout_seconds=config.timeout_seconds,
        teacher_cache=TeacherCache.below(config.output, config.teacher_cache_bytes),
        stop_file=stop_file,
    )
