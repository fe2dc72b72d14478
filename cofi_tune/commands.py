"""What a person types to make a trial's model again, without a search."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cofi_tune import methods
from cofi_tune.config import TEACHER_CACHE_BYTES, StudyConfig, TrialConfig, build
from cofi_tune.data.task import Task

FLAGS = ("method", "seed", "epochs", "cofi/target_sparsity")
"""Settings that have a flag of their own, or go without saying."""


def reproduce(
    config: StudyConfig,
    task: Task,
    teacher: Path,
    trial_id: str,
    own: TrialConfig,
    chain: Sequence[float] = (),
) -> str:
    """The `cofi_tune.prune` command that makes a trial's model; "" for a method that it does not know.

    Args:
        config: of the search.
        task: whose rows.
        teacher: directory of the dense model.
        trial_id: names the output.
        own: the trial's hyperparameters; of a link of a chain, those of the first.
        chain: target sparsities up to the link's: those before it are made again too.
    """
    if own.method != "cofi":
        return ""
    settings = settings_of(own)
    options = build(methods.load(own.method).Config, {"target_sparsity": 0.5})
    usual = settings_of(TrialConfig(options=options.model_dump()))
    words = [*_source(config, task), "--model", config.model, "--teacher", str(teacher)]
    for flag, value in (("--tokenizer", config.tokenizer), ("--max-train-samples", config.max_train_samples)):
        words += [] if value is None else [flag, str(value)]
    if len(chain) > 1:
        words += ["--chain", ",".join(map(repr, chain)), "--chain-epochs", repr(config.chain_epochs)]
    else:
        words += ["--target-sparsity", repr(settings["cofi/target_sparsity"])]
    words += ["--epochs", repr(own.epochs), "--seed", str(own.seed)]
    for name, value in settings.items():
        if name not in FLAGS and value != usual.get(name):
            words += ["--option", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    words += ["--device", "cuda"] if config.device == "cuda" else ["--threads", str(config.cpus_per_worker)]
    words += [] if config.precision == "auto" else ["--precision", config.precision]
    if config.teacher_cache_bytes != TEACHER_CACHE_BYTES:
        words += [
            "--teacher-cache",
            f"{config.teacher_cache_bytes}B" if config.teacher_cache_bytes else "off",
        ]
    words += [] if config.shrink else ["--no-shrink"]
    words += ["--scenario", config.scenario, "--selection", config.selection, "--output", f"again/{trial_id}"]
    return f"python -m cofi_tune.prune {shlex.join(words)}"


def settings_of(config: TrialConfig) -> dict[str, Any]:
    """Every setting of a run by name, the method's under `<method>/`, defaults filled in.

    `reached` is there for a link of a chain that follows another, alone.

    Raises:
        ValueError: options that the method does not know, or out of its range.
    """
    options = build(methods.load(config.method).Config, config.options)
    own = config.model_dump(exclude={"options"} if config.reached else {"options", "reached"})
    if config.reached:
        own["reached"] = " > ".join(f"{target:g}" for target in config.reached)
    return own | {f"{config.method}/{name}": value for name, value in options.model_dump(mode="json").items()}


def _source(config: StudyConfig, task: Task) -> list[str]:
    source = config.source
    words = ["--task", task.name]
    if source.get("data_dir"):
        return [*words, "--data-dir", source["data_dir"]]
    if not source.get("train_file"):
        return words
    words += ["--train-file", source["train_file"], "--dev-file", source["dev_file"]]
    for column in task.text_columns:
        words += ["--text-column", column]
    words += ["--label-column", task.label_column, "--metric", task.metric]
    return [*words, "--regression"] if task.is_regression else words
