"""The wanted columns of a file as strings, and how messages name a place in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


class DataError(ValueError):
    """Data that cannot be used, or cannot be reached. One line: the place and what is wrong."""


@dataclass(frozen=True)
class Wanted:
    """The columns to read, by name."""

    texts: tuple[str, ...]
    label: str

    @property
    def names(self) -> tuple[str, ...]:
        """Text columns, then the label column."""
        return (*self.texts, self.label)


@dataclass
class Table:
    """The wanted columns of one file, as the file spells them."""

    path: str
    wanted: Wanted
    label_place: int | None = None
    """1-based position of the label column, where columns have positions."""
    texts: list[tuple[str, ...]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """1-based line on which each row starts; where there are no lines, the row."""

    def add(self, line: int, values: Sequence[str]) -> None:
        """Append a row: the values of `wanted.names`."""
        self.texts.append(tuple(values[:-1]))
        self.labels.append(values[-1])
        self.lines.append(line)

    def label_fault(self, rows: Sequence[int], problem: str) -> DataError:
        """The error for labels that are wrong in these rows (at least one)."""
        where = column(self.label_place, self.wanted.label)
        message = f"{self.path}:{self.lines[rows[0]]}: {where}: {problem}"
        if len(rows) > 1:
            first = ", ".join(str(self.lines[row]) for row in rows[:5])
            more = ", ..." if len(rows) > 5 else ""
            message += f" ({len(rows)} such rows, at lines {first}{more})"
        return DataError(message)


def column(place: int | None, name: str | None = None) -> str:
    """How messages name a column: `column 2 (label)`; `place` counts from 1."""
    if place is None:
        return f"column {name}"
    return f"column {place} ({name})" if name else f"column {place}"


def shown(value: object) -> str:
    """A value for a message: quoted, on one line, at most 40 characters of it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
