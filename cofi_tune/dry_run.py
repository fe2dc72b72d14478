"""`python -m cofi_tune.search --dry-run`: what would be searched. Starts no Ray and imports no torch."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cofi_tune.config import TrialConfig
from cofi_tune.data.sources import Source, read
from cofi_tune.data.split import limit
from cofi_tune.data.task import Task


def show(
    console: Console,
    args: argparse.Namespace,
    task: Task,
    source: Source,
    drawn: Sequence[Any],
    num_points: int,
) -> None:
    """Print the space, some proposals of it, and the length of a trial.

    Args:
        console: where to.
        args: the command's.
        task: whose rows.
        source: where they are; they are read and counted.
        drawn: Optuna trials, with what was proposed in the user attribute `proposal`.
        num_points: proposals that the space tries first.

    Raises:
        DataError: rows that cannot be used.
    """
    rows = len(limit(task, read(task, source)["train"], args.max_train_samples))
    ranges = {name: d for trial in drawn for name, d in trial.distributions.items()}
    space = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("parameter", "values", "scale"):
        space.add_column(name)
    for name, distribution in ranges.items():
        space.add_row(name, *_range(distribution))
    console.print(Text(f"space {args.space}: {len(ranges)} parameters, {num_points} proposals tried first"))
    console.print(space)
    proposals = [trial.user_attrs["proposal"] for trial in drawn]
    console.print(Text(f"\n{len(proposals)} draws"))
    console.print(_draws(proposals))
    epochs = float(args.epochs or task.prune_epochs)
    console.print(Text("\n" + _length(proposals, rows, epochs, args.trials)))


def _range(distribution: Any) -> tuple[str, str]:
    if hasattr(distribution, "choices"):
        return ", ".join(str(choice) for choice in distribution.choices), "one of"
    return f"{distribution.low:g} .. {distribution.high:g}", "log" if distribution.log else "linear"


def _draws(proposals: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name in dict.fromkeys(name for proposal in proposals for name in proposal):
        table.add_row(name, *(_value(proposal.get(name)) for proposal in proposals))
    return table


def _length(proposals: Sequence[Mapping[str, Any]], rows: int, epochs: float, trials: int) -> str:
    steps = []
    for proposal in proposals:
        trial = TrialConfig.from_proposal(proposal, base_learning_rate=1.0, epochs=epochs, seed=0)
        per_epoch = math.ceil(rows / trial.batch_size)
        steps.append(round((trial.epochs + trial.finetune_epochs) * per_epoch))
    low, high = min(steps), max(steps)
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{trials} trials of {epochs:g} epochs: {rows:,} training rows, {span} steps each"


def _value(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
