"""`python -m cofi_tune.search --dry-run`: what would be searched, and what it would cost. Starts no Ray."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cofi_tune import chains, estimate, points, preflight
from cofi_tune.budget import in_words
from cofi_tune.components import pretrained
from cofi_tune.config import StudyConfig, TrialConfig
from cofi_tune.data.encode import encode
from cofi_tune.data.sources import Source
from cofi_tune.data.task import Task
from search_spaces import Loaded


def show(
    console: Console,
    config: StudyConfig,
    task: Task,
    source: Source,
    space: Loaded,
    proposals: Sequence[Mapping[str, Any]],
) -> None:
    """Print the space, some proposals of it, and what a trial and the search would take.

    Args:
        console: where to.
        config: the study's.
        task: whose rows.
        source: where they are.
        space: what is searched.
        proposals: drawn of it; a trial like the first one is timed.

    Raises:
        DataError: rows that cannot be used.
        ValueError: a model that cannot be used.
    """

    def say(text: str) -> None:
        console.print(Text(text), soft_wrap=True)

    own = chains.at(space.space, config.chain[0]) if config.chain else space.space
    ranges = points.distributions(own)
    first = len(config.enqueue) + len(chains.without_target(space.points) if config.chain else space.points)
    say(f"Space {config.space}: {size(ranges)}; {first} points are tried first")
    console.print(_ranges(ranges))
    if config.chain:
        said = f"chain {chains.in_words(config.chain, config.chain_epochs)}"
        say(f"\nEach proposal is pruned to one target after another, {len(config.chain)} trials: {said}")
    say(f"\n{len(proposals)} draws")
    console.print(_draws(proposals))
    trials = [
        TrialConfig.from_proposal(
            one, base_learning_rate=config.base_learning_rate, epochs=config.epochs, seed=config.seed
        )
        for one in proposals
    ]
    trials = [link for trial in trials for link in trial.links(config.chain, config.chain_epochs)]
    with tempfile.TemporaryDirectory() as scratch:
        kept = config.output / "data"
        tokenizer = config.tokenizer or config.teacher or pretrained.tokenizer_of(config.model)
        cache = kept if kept.is_dir() else Path(scratch)
        data = encode(task, source, tokenizer, cache, config.max_train_samples)
        say(f"\n{_length(trials, len(data.splits['train']), config)}")
        if config.device == "cuda" and not torch.cuda.is_available():
            say("No estimate: trials run on GPUs, and this machine has none that torch can use.")
            return
        found = estimate.estimate(config, data, trials)
        for line in (*_timed(found.timing, config), *_extrapolated(found, config, _size_of(data.directory))):
            say(line)


def size(ranges: Mapping[str, BaseDistribution]) -> str:
    """How large a space is, in words."""
    choices = [len(d.choices) for d in ranges.values() if isinstance(d, CategoricalDistribution)]
    numbers = len(ranges) - len(choices)
    parts = [f"{len(choices)} with choices ({math.prod(choices):,} combinations)"] * bool(choices)
    parts += [f"{numbers} with ranges of numbers"] * bool(numbers)
    return f"{len(ranges)} parameters" + (f", {' and '.join(parts)}" if parts else "")


def _ranges(ranges: Mapping[str, BaseDistribution]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("parameter", "values", "scale"):
        table.add_column(name)
    for name, distribution in ranges.items():
        table.add_row(name, *_range(distribution))
    return table


def _range(distribution: Any) -> tuple[str, str]:
    if hasattr(distribution, "choices"):
        return ", ".join(str(choice) for choice in distribution.choices), "one of"
    return f"{distribution.low:g} .. {distribution.high:g}", "log" if distribution.log else "linear"


def _draws(proposals: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in dict.fromkeys(name for proposal in proposals for name in proposal):
        table.add_row(name, *(_value(proposal.get(name)) for proposal in proposals))
    return table


def _length(trials: Sequence[TrialConfig], rows: int, config: StudyConfig) -> str:
    epochs = [trial.epochs + trial.finetune_epochs for trial in trials]
    steps = [
        round(one * math.ceil(rows / trial.batch_size)) for one, trial in zip(epochs, trials, strict=True)
    ]
    length = f"{_span(epochs)} epochs: {rows:,} training rows, {_span(steps)} steps each"
    return f"{config.trials} trials of {length}"


def _timed(timing: estimate.Timing, config: StudyConfig) -> list[str]:
    threads = config.cpus_per_worker
    where = "one GPU" if config.device == "cuda" else f"{threads} CPU thread{'s' if threads > 1 else ''}"
    cut = "" if timing.target_sparsity is None else f" (cut to a sparsity of {timing.target_sparsity:.2f})"
    steps = [
        f"  a step of {phase} {_seconds(timing.step(phase))}, the median of {len(each)} "
        f"between {_seconds(min(each))} and {_seconds(max(each))}"
        for phase, each in timing.steps.items()
    ]
    return [
        f"\nTimed now, like draw 1: one process with {where}, batches of {timing.batch_size} real rows, "
        f"weights of {config.teacher or config.model} as they are{cut}",
        *steps,
        f"  evaluation {_seconds(timing.dense_row)} a row dense, {_seconds(timing.small_row)} cut; "
        f"one whole measurement of speed {_seconds(timing.measurement)}",
    ]


def _extrapolated(found: estimate.Estimate, config: StudyConfig, data_bytes: int) -> list[str]:
    each = [cost.seconds for cost in found.trials]
    taught = found.outputs + (found.teacher.seconds if found.teacher else 0.0)
    total = config.trials * mean(each) + taught
    what = "GPU" if config.gpus_per_worker else "CPU"
    held = config.gpus_per_worker or config.cpus_per_worker
    wall = taught + math.ceil(config.trials / config.concurrency) * mean(each)
    outputs = found.timing.outputs_bytes
    disk = config.trials * found.timing.model_bytes + found.timing.teacher_bytes + data_bytes + outputs
    checkpoints = preflight.checkpoint_bytes(found.timing.teacher_bytes, config.concurrency)
    lines = [
        "\nExtrapolated from that by numbers of steps and rows, and in a straight line between the two sizes",
        f"  a trial {_times(each)}",
    ]
    if found.teacher is not None:
        steps = f"{found.teacher.steps:,} steps, unless an earlier search has made it"
        lines.append(f"  the teacher {in_words(found.teacher.seconds)}, {steps}")
    if outputs:
        lines.append(f"  its outputs {in_words(found.outputs)}, once for all trials")
    return [
        *lines,
        f"  {config.trials} trials, {config.concurrency} at a time: {in_words(wall)}; "
        f"{total * held / 3600:.2g} {what} hours",
        f"  disk {_megabytes(disk)}: {config.trials} models of {_megabytes(found.timing.model_bytes)}, "
        f"the teacher {_megabytes(found.timing.teacher_bytes)}, encoded rows {_megabytes(data_bytes)}"
        f"{f', its outputs {_megabytes(outputs)}' if outputs else ''}; "
        f"and while trials run up to {_megabytes(checkpoints)} of checkpoints",
        "Not counted: starting processes, writing checkpoints, MLflow"
        + (", what shrinking saves while a student is pruned" if config.shrink else "")
        + (", what more workers per trial save" if config.workers_per_trial > 1 else "")
        + (", what trials side by side cost each other" if config.concurrency > 1 else ""),
    ]


def _times(seconds: Sequence[float]) -> str:
    low, high = in_words(min(seconds)), in_words(max(seconds))
    return low if low == high else f"{low} to {high}, {in_words(mean(seconds))} on average of these draws"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.0f} MB" if number >= 5e5 else f"{number / 1e3:,.0f} kB"


def _size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}"


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
