"""What a person sees of a running search: a live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cofi_tune.messages import UNFINISHED, Asked, Link, Outcome
from cofi_tune.records import Progress

QUIET_SECONDS = 60.0
"""A running trial is heard of at least this often, where there is no table."""
COLOURS = {"complete": "green", "running": "cyan", "pruned": "yellow", "fail": "red"}


@dataclass
class Row:
    """A trial as it stands."""

    trial_id: str
    progress: Progress | None = None
    selection_score: float | None = None
    outcome: Outcome | None = None
    printed: float = field(default=0.0)
    link: Link | None = None

    @property
    def state(self) -> str:
        """running, or how it ended."""
        return "running" if self.outcome is None else self.outcome.state


class Lines:
    """A watcher that prints one line per event."""

    def __init__(self, console: Console, study: str, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            console: where to.
            study: its name, which every trial's id starts with.
            clock: seconds.
        """
        self.console, self.study, self.clock = console, study, clock
        self.rows: dict[str, Row] = {}
        self._warned: set[str] = set()

    def __enter__(self) -> Lines:
        """Nothing to open."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""

    def note(self, text: str) -> None:
        """A line of its own."""
        stamp = time.strftime("%H:%M:%S")
        self.console.print(Text(f"{stamp} {text}"), soft_wrap=True)

    def teaching(self, progress: Progress) -> None:
        """The teacher's training."""
        if progress.selection_score is not None:
            self.note(f"teacher {describe(progress)}")

    def started(self, asked: Asked) -> None:
        """A trial begins; what was proposed for it."""
        self.rows[asked.trial_id] = Row(asked.trial_id, printed=self.clock(), link=asked.link)
        link = f"{self._link(asked.link)}; " if asked.link else ""
        self.note(f"trial {self._short(asked.trial_id)} starts: {link}{describe_params(asked.params)}")

    def heard(self, trial_id: str, progress: Progress, late: bool = False) -> None:
        """Printed at the start of a phase, with a score, and now and then; nobody waits for a late one."""
        if late:
            return
        row = self.rows.setdefault(trial_id, Row(trial_id))
        new_phase = row.progress is None or row.progress.phase != progress.phase
        self._update(row, progress)
        if new_phase or progress.selection_score is not None or self.clock() - row.printed > QUIET_SECONDS:
            row.printed = self.clock()
            self.note(f"trial {self._short(trial_id)} {describe(progress)}")

    def warned(self, trial_id: str, text: str, again: bool = False) -> None:
        """Every text once, whichever trial it comes from, unless it is to be said again."""
        if again or text not in self._warned:
            self._warned.add(text)
            self.note(f"trial {self._short(trial_id)}: {' '.join(text.split())}")

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """How."""
        row = self.rows.setdefault(trial_id, Row(trial_id))
        row.outcome = outcome
        self.note(f"trial {self._short(trial_id)} {describe_outcome(outcome)}{_chain_ends(row)}")

    def _update(self, row: Row, progress: Progress) -> None:
        row.progress = progress
        if progress.selection_score is not None:
            row.selection_score = progress.selection_score

    def _link(self, link: Link) -> str:
        after = f" after {self._short(link.parent)}" if link.parent else ""
        return f"link {link.place} of {len(link.chain)}{after}, target {link.targets[-1]:g}"

    def _short(self, trial_id: str) -> str:
        return trial_id.removeprefix(f"{self.study}-")


def _chain_ends(row: Row) -> str:
    """What it means for a chain that a link leaves no model."""
    outcome, link = row.outcome, row.link
    if outcome is None or link is None or link.is_last or outcome.state == "complete":
        return ""
    return "" if outcome.reason in UNFINISHED else "; its chain ends here"


class LiveTable(Lines):
    """One row per trial, kept up to date at the bottom of a terminal; notes scroll above."""

    def __init__(self, console: Console, study: str) -> None:
        super().__init__(console, study)
        self.preparation = ""
        self._live = Live(
            console=console,
            get_renderable=self._render,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveTable:
        """Take the bottom of the terminal."""
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the table as it last was."""
        self._live.stop()

    def note(self, text: str) -> None:
        """A line above the table."""
        self.console.print(Text(text), soft_wrap=True)

    def teaching(self, progress: Progress) -> None:
        """A line that is overwritten."""
        self.preparation = f"teacher {describe(progress)}"

    def started(self, asked: Asked) -> None:
        """A new row."""
        self.preparation = ""
        self.rows[asked.trial_id] = Row(asked.trial_id, link=asked.link)

    def heard(self, trial_id: str, progress: Progress, late: bool = False) -> None:
        """An updated row."""
        if not late:
            self._update(self.rows.setdefault(trial_id, Row(trial_id)), progress)

    def ended(self, trial_id: str, outcome: Outcome) -> None:
        """An updated row; a failure also leaves a line."""
        row = self.rows.setdefault(trial_id, Row(trial_id))
        row.outcome = outcome
        if outcome.state != "complete":
            self.note(f"trial {self._short(trial_id)} {describe_outcome(outcome)}{_chain_ends(row)}")

    def _render(self) -> Table | Text:
        if not self.rows:
            return Text(self.preparation, style="dim")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("trial", "state", "phase"):
            table.add_column(name, no_wrap=True)
        for name in ("step", "sparsity", "selection", "score", "speedup"):
            table.add_column(name, justify="right", no_wrap=True)
        rows = [*self.rows.values()]
        room = max(3, self.console.height - 6)
        for row in _visible(rows, room):
            table.add_row(*self._cells(row))
        hidden = len(rows) - min(len(rows), room)
        if hidden:
            table.caption = f"{hidden} earlier trials are not shown"
            table.caption_justify = "left"
        return table

    def _cells(self, row: Row) -> list[Text]:
        progress = row.progress
        measured = row.outcome.measurement if row.outcome else None
        sparsity = "" if progress is None else _sparsity(progress)
        if measured is not None:
            sparsity = f"{measured.sparsity:.3f}"
        state = Text(row.state, style=COLOURS[row.state])
        phase = "" if progress is None else progress.phase
        if row.outcome is not None:
            phase = row.outcome.reason or ""
        parent = row.link.parent if row.link else None
        cells = [
            self._short(row.trial_id) + (f" after {self._short(parent)}" if parent else ""),
            phase,
            "" if progress is None else f"{progress.step}/{progress.num_steps}",
            sparsity,
            "" if row.selection_score is None else f"{row.selection_score:.3f}",
            "" if measured is None else f"{measured.score:.3f}",
            "" if measured is None else f"{measured.speedup:.2f}x",
        ]
        plain = [Text(cell) for cell in cells]
        return [plain[0], state, *plain[1:]]


STATE_DUMP = "[state-dump]"
"""Before each line of the counters that Ray prints when a node dies."""


class Foreign(io.TextIOBase):
    """Takes what libraries print, and lets the first words of a line through, once; of counters none."""

    def __init__(self, watch: Lines) -> None:
        self.watch = watch
        self._seen: set[str] = set()

    def write(self, text: str) -> int:
        """Print like a note."""
        for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines():
            first = line.strip().split(". ")[0][:200]
            if first and first not in self._seen and not first.startswith(STATE_DUMP):
                self._seen.add(first)
                self.watch.note(first)
        return len(text)


def display(console: Console, study: str) -> Lines:
    """The table on a terminal, lines elsewhere."""
    return LiveTable(console, study) if console.is_terminal else Lines(console, study)


def describe(progress: Progress) -> str:
    """A progress report in words."""
    parts = [f"{progress.phase} {progress.step}/{progress.num_steps}"]
    if "loss" in progress.losses:
        parts.append(f"loss {progress.losses['loss']:.3f}")
    if progress.expected_sparsity is not None:
        parts.append(f"sparsity {_sparsity(progress)}")
    if progress.selection_score is not None:
        parts.append(f"selection score {progress.selection_score:.3f}")
    return ", ".join(parts)


def describe_outcome(outcome: Outcome) -> str:
    """A trial's end in words."""
    m = outcome.measurement
    if m is None:
        detail = f": {outcome.message}" if outcome.message else ""
        if outcome.reason in UNFINISHED:
            return f"{outcome.reason}{detail}"
        return f"{outcome.state}, {outcome.reason or 'no reason given'}{detail}"
    speeds = ", ".join(f"{t.speedup:.2f}x {t.scenario}" for t in m.latencies)
    return (
        f"{outcome.state}: score {m.score:.3f}, {speeds}, sparsity {m.sparsity:.3f}, "
        f"{m.num_parameters:,} parameters, {m.seconds:.0f} s"
    )


def describe_params(params: Mapping[str, Any]) -> str:
    """A proposal on one line."""
    return ", ".join(f"{name.rpartition('/')[2]} {_short_value(value)}" for name, value in params.items())


def _visible(rows: list[Row], room: int) -> list[Row]:
    """The latest rows that fit, running ones whatever happens."""
    running = [row for row in rows if row.outcome is None]
    over = [row for row in rows if row.outcome is not None]
    left = max(0, room - len(running))
    return sorted(running + (over[-left:] if left else []), key=lambda row: row.trial_id)


def _sparsity(progress: Progress) -> str:
    if progress.expected_sparsity is None:
        return ""
    text = f"{progress.expected_sparsity:.3f}"
    return text if progress.target_sparsity is None else f"{text} of {progress.target_sparsity:.3f}"


def _short_value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
