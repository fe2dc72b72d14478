"""What a study was made for: it goes on only as what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

import cofi_tune
import search_spaces
from cofi_tune import chains, evaluate, fields
from cofi_tune.config import StudyConfig
from cofi_tune.data.encode import EncodedTask
from cofi_tune.optuna_study import OtherPurpose
from cofi_tune.records import OBJECTIVES


def purpose(config: StudyConfig, data: EncodedTask) -> dict[str, Any]:
    """What all trials of a study have in common, without which they could not be compared."""
    space = search_spaces.load(config.space, config.task)
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
        "chain": chains.in_words(config.chain, config.chain_epochs) if config.chain else None,
        "objectives": [f"{objective.direction} {objective.name}" for objective in OBJECTIVES],
        "scenario": config.scenario,
        "min_score": config.min_score,
        "min_speedup": config.min_speedup,
        "selection": config.selection,
        "seed": config.seed,
        "device": config.device,
        "precision": config.trained_in,
        "shrink": config.shrink,
        "threads": config.cpus_per_worker if config.device == "cpu" else None,
        "code": cofi_tune.__version__,
    }


def same_teacher(study: optuna.Study, taught: Path) -> None:
    """Refuse to go on with another teacher than the study's first.

    Raises:
        OtherPurpose: names both.
    """
    before = study.user_attrs.get("teacher")
    if before is None:
        study.set_user_attr("teacher", taught.name)
    elif before != taught.name:
        raise OtherPurpose(
            f"the study {study.study_name!r} was made with the teacher {before}, now it is {taught.name}; "
            "give this one another --name"
        )


def study_tags(config: StudyConfig, study: optuna.Study, data: EncodedTask) -> dict[str, str]:
    """What all runs of the study have in common; a report needs no more."""
    if "reference_score" not in study.user_attrs:
        study.set_user_attr("reference_score", evaluate.constant_score(data))
    return {
        "cofi.task": config.task,
        "cofi.space": config.space,
        "cofi.model": config.model,
        "cofi.data": study.user_attrs["purpose"]["data"],
        "cofi.device": config.device,
        "cofi.held": f"{config.processors_per_trial:g}",
        "cofi.precision": config.trained_in,
        "cofi.shrink": "yes" if config.shrink else "no",
        "cofi.scenario": config.scenario,
        "cofi.metric": data.task.metric,
        "cofi.dev_split": data.task.dev_splits[0],
        "cofi.reference_score": repr(study.user_attrs["reference_score"]),
        "cofi.min_score": str(config.min_score),
        "cofi.min_speedup": str(config.min_speedup),
        "cofi.trials": str(config.trials),
        "cofi.output": config.place,
        "cofi.command": config.command,
        **fields.versions(),
    }
