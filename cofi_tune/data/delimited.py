r"""Tables of fields between tabs or commas: UTF-8, with or without a byte order mark.

Lines end in \n or \r\n and in nothing else: U+2028, \x0b and their kind, at which
`str.splitlines` would break, are text.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from cofi_tune.data.names import closest
from cofi_tune.data.table import DataError, Table, Wanted, column, shown

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def fill_from_tsv(file: BinaryIO, table: Table, columns: tuple[str, ...] | None) -> None:
    """Read tab-separated fields; a quotation mark is a character like any other.

    Args:
        file: opened in binary.
        table: gets the rows.
        columns: names of all columns, where the file has no header line.

    Raises:
        DataError: naming file, line and column.
    """
    lines = enumerate(decoded_lines(file, table.path, separator=b"\t"), 1)
    if columns is None:
        columns = _header(table, next(lines, (1, ""))[1].split("\t"))
    wanted = _places(table.path, columns, table.wanted)
    table.label_place = wanted[-1] + 1
    for line, text in lines:
        fields = text.split("\t")
        _check_width(table.path, line, fields, columns)
        table.add(line, [fields[place] for place in wanted])


def fill_from_csv(file: BinaryIO, table: Table) -> None:
    """Read comma-separated fields, with a header line; a quoted field may hold commas and lines.

    Raises:
        DataError: naming file, the line on which the row starts, and where it can the column.
    """
    rows = csv.reader(decoded_lines(file, table.path, keep_ends=True), strict=True)
    columns: tuple[str, ...] = ()
    wanted: list[int] = []
    line = 1
    while (fields := _next_row(rows, table.path, line)) is not None:
        if not columns:
            columns = _header(table, fields)
            wanted = _places(table.path, columns, table.wanted)
            table.label_place = wanted[-1] + 1
        else:
            _check_width(table.path, line, fields, columns)
            table.add(line, [fields[place] for place in wanted])
        line = rows.line_num + 1


def decoded_lines(
    file: BinaryIO, path: str, separator: bytes | None = None, keep_ends: bool = False
) -> Iterator[str]:
    r"""Lines of a UTF-8 file.

    Args:
        file: opened in binary.
        path: for messages.
        separator: of columns, so that a message can name one; None: bytes are counted.
        keep_ends: leave \n and \r\n where they are.

    Raises:
        DataError: a byte that is NUL or not UTF-8.
    """

    def fault(line: int, raw: bytes, at: int, problem: str) -> DataError:
        place = f"byte {at + 1}" if separator is None else column(raw.count(separator, 0, at) + 1)
        return DataError(f"{path}:{line}: {place}: {problem}")

    for line, raw in enumerate(file, 1):
        if line == 1:
            raw = raw.removeprefix(BYTE_ORDER_MARK)
        if not keep_ends and raw.endswith(b"\n"):
            raw = raw[:-1]
        if not keep_ends:
            raw = raw.removesuffix(b"\r")
        if b"\0" in raw:
            raise fault(line, raw, raw.index(b"\0"), "a NUL byte, which no text has")
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            problem = f"byte 0x{raw[error.start]:02x} is not UTF-8"
            raise fault(line, raw, error.start, problem) from None


def _next_row(rows: Iterator[list[str]], path: str, line: int) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise DataError(f"{path}:{line}: the row that starts here: {error}") from None


def _header(table: Table, fields: Sequence[str]) -> tuple[str, ...]:
    if not any(fields):
        raise DataError(f"{table.path}:1: empty, where a header line should be")
    return tuple(fields)


def _places(path: str, names: Sequence[str], wanted: Wanted) -> list[int]:
    """0-based positions of the wanted columns."""
    counts = Counter(names)
    for name in wanted.names:
        if counts[name] == 0:
            near = closest(name, counts)
            hint = f"did you mean {near!r}? " if near else ""
            there = ", ".join(shown(one) for one in names[:20])
            raise DataError(f"{path}:1: no column {name!r}; {hint}columns: {there}")
        if counts[name] > 1:
            raise DataError(f"{path}:1: {counts[name]} columns are called {name!r}")
    return [names.index(name) for name in wanted.names]


def _check_width(path: str, line: int, fields: Sequence[str], names: Sequence[str]) -> None:
    if len(fields) == len(names):
        return
    if not any(fields) and len(fields) <= 1:
        raise DataError(f"{path}:{line}: {column(1, names[0])}: empty line")
    counted = f"{len(fields)} columns instead of {len(names)}"
    if len(fields) > len(names):
        raise DataError(f"{path}:{line}: {column(len(names) + 1)}: one too many; {counted}")
    missing = column(len(fields) + 1, names[len(fields)])
    raise DataError(f"{path}:{line}: {missing}: missing; {counted}")
