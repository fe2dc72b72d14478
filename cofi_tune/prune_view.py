"""What a person sees of one run: a bar on a terminal, lines elsewhere, and a short table at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from cofi_tune.records import Measurement, Note, Progress

if TYPE_CHECKING:
    from cofi_tune.data.task import Task


class View:
    """Shows progress on standard error, the result on standard output."""

    def __init__(self) -> None:
        """Decide between bars and lines."""
        self.console = Console(stderr=True)
        self.bars = Bars(
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.rows: dict[str, Any] = {}

    def __enter__(self) -> View:
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def report(self, who: str, progress: Progress) -> None:
        """Show one report of the teacher's or the student's training."""
        note = describe(progress)
        if not self.console.is_terminal:
            print(f"{who} step {progress.step}/{progress.num_steps} {note}", file=sys.stderr, flush=True)
            return
        if who not in self.rows:
            self.rows[who] = self.bars.add_task(who, total=progress.num_steps, note="")
        self.bars.update(self.rows[who], completed=progress.step, note=note)

    def warn(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        """Show a warning once, on one line; a note without that word."""
        if issubclass(category, Note):
            self.console.print(str(message), markup=False, highlight=False, soft_wrap=True)
        else:
            self.console.print(f"warning: {message}", style="yellow", soft_wrap=True)

    def table(self, task: Task, measurement: Measurement, output: Path) -> None:
        """Teacher and pruned model side by side."""
        console = Console()
        table = Table(title=f"{task.name}: {task.metric} on the dev rows")
        for column in ("", task.metric, "parameters", "sparsity"):
            table.add_column(column, justify="left" if not column else "right")
        for timing in measurement.latencies:
            table.add_column(f"speedup\n{timing.scenario}", justify="right")
        teacher, m = measurement.teacher_scores[task.metric], measurement
        ones = ["1.00"] * len(m.latencies)
        table.add_row("teacher", f"{teacher:.4f}", f"{m.dense_num_parameters:,}", "0.000", *ones)
        speedups = [f"{t.speedup:.2f} [{t.speedup_low:.2f}-{t.speedup_high:.2f}]" for t in m.latencies]
        table.add_row("pruned", f"{m.score:.4f}", f"{m.num_parameters:,}", f"{m.sparsity:.3f}", *speedups)
        console.print(table)
        console.print(
            f"model: {output / 'model'}   measurement: {output / 'measurement.json'}", soft_wrap=True
        )


def describe(progress: Progress) -> str:
    """The gist of a report, on one line."""
    parts = [progress.phase, f"loss {progress.losses.get('loss', float('nan')):.4f}"]
    if progress.expected_sparsity is not None and progress.target_sparsity is not None:
        parts.append(f"sparsity {progress.expected_sparsity:.3f} of {progress.target_sparsity:.3f}")
    if progress.selection_score is not None:
        parts.append(f"selection {progress.selection_score:.4f}")
    return "  ".join(parts)
