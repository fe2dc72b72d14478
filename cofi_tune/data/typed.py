"""Tables whose values have types: JSON lines and parquet. Texts are text, labels may be numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from cofi_tune.data.delimited import decoded_lines
from cofi_tune.data.table import DataError, Table, column, shown


def fill_from_jsonl(file: BinaryIO, table: Table) -> None:
    """Read one JSON object a line.

    Raises:
        DataError: not JSON, a key twice, a wanted key missing, a value of the wrong type.
    """
    for line, text in enumerate(decoded_lines(file, table.path), 1):
        try:
            row = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
        except json.JSONDecodeError as error:
            problem = f"character {error.pos + 1}: not JSON: {error.msg}"
            raise DataError(f"{table.path}:{line}: {problem}") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{table.path}:{line}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{table.path}:{line}: not an object: {shown(row)}")
        table.add(line, _values(row, table, line))


def fill_from_parquet(path: Path, table: Table) -> None:
    """Read the wanted columns of a parquet file; rows stand for lines, counted from 1.

    Raises:
        DataError: not parquet, a column missing, a value that is null or of the wrong type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            there = file.schema_arrow.names
            missing = [name for name in table.wanted.names if there.count(name) != 1]
            if missing:
                columns = ", ".join(shown(name) for name in there[:20])
                raise DataError(f"{path}: no single column {missing[0]!r}; columns: {columns}")
            for batch in file.iter_batches(columns=list(table.wanted.names)):
                for row in batch.to_pylist():
                    line = len(table.lines) + 1
                    table.add(line, _values(row, table, line))
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not parquet, or broken: {_first_line(error)}") from None


def _values(row: Mapping[str, Any], table: Table, line: int) -> list[str]:
    values = []
    for name in table.wanted.names:
        where = f"{table.path}:{line}: {column(None, name)}"
        value = row.get(name)
        if value is None:
            raise DataError(f"{where}: {'null' if name in row else 'missing'}")
        if name == table.wanted.label and isinstance(value, bool | int | float):
            value = str(value).lower() if isinstance(value, bool) else repr(value)
        if not isinstance(value, str):
            raise DataError(f"{where}: {shown(value)} is not text")
        if "\0" in value:
            raise DataError(f"{where}: a NUL character, which no text has")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise DataError(f"{where}: half of a surrogate pair, which is no character")
        values.append(value)
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
