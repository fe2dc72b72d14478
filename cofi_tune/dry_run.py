"""`python -m cofi_tune.search --dry-run`: what would be searched, and what it would cost. Starts no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cofi_tune import points
from cofi_tune.config import StudyConfig, TrialConfig
from cofi_tune.data.sources import Source, read
from cofi_tune.data.split import limit
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
    """Print the space, some proposals of it, and the length of a trial.

    Args:
        console: where to.
        config: the study's.
        task: whose rows.
        source: where they are; they are read and counted.
        space: what is searched.
        proposals: drawn of it.

    Raises:
        DataError: rows that cannot be used.
    """
    rows = len(limit(task, read(task, source)["train"], config.max_train_samples))
    ranges = points.distributions(space.space)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("parameter", "values", "scale"):
        table.add_column(name)
    for name, distribution in ranges.items():
        table.add_row(name, *_range(distribution))
    first = len(config.enqueue) + len(space.points)
    console.print(Text(f"space {config.space}: {size(ranges)}; {first} points are tried first"))
    console.print(table)
    console.print(Text(f"\n{len(proposals)} draws"))
    console.print(_draws(proposals))
    console.print(Text("\n" + _length(proposals, rows, config)))


def size(ranges: Mapping[str, BaseDistribution]) -> str:
    """How large a space is, in words."""
    choices = [len(d.choices) for d in ranges.values() if isinstance(d, CategoricalDistribution)]
    numbers = len(ranges) - len(choices)
    parts = [f"{len(choices)} with {math.prod(choices):,} combinations of choices"] * bool(choices)
    parts += [f"{numbers} dimensions of numbers"] * bool(numbers)
    return f"{len(ranges)} parameters" + (f" ({' x '.join(parts)})" if parts else "")


def _range(distribution: Any) -> tuple[str, str]:
    if hasattr(distribution, "choices"):
        return ", ".join(str(choice) for choice in distribution.choices), "one of"
    return f"{distribution.low:g} .. {distribution.high:g}", "log" if distribution.log else "linear"


def _draws(proposals: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in dict.fromkeys(name for proposal in proposals for name in proposal):
        table.add_row(name, *(_value(proposal.get(name)) for proposal in proposals))
    return table


def _length(proposals: Sequence[Mapping[str, Any]], rows: int, config: StudyConfig) -> str:
    steps, epochs = [], []
    for proposal in proposals:
        trial = TrialConfig.from_proposal(
            proposal, base_learning_rate=1.0, epochs=config.epochs, seed=config.seed
        )
        epochs.append(trial.epochs + trial.finetune_epochs)
        steps.append(round(epochs[-1] * math.ceil(rows / trial.batch_size)))
    return (
        f"{config.trials} trials of {_span(epochs)} epochs: {rows:,} training rows, {_span(steps)} steps each"
    )


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}"


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
