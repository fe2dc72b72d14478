"""Points that a search is given: proposals to try first, from a file (`--enqueue`) or from the space.

A point is the params of one proposal; what it leaves out is drawn. Every point is proposed once, whatever
happens in between: the study remembers it with its trial.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from cofi_tune.data.names import unknown

ENQUEUED = "enqueued"
"""User attribute of a trial that was given, and not sampled: what was given."""
FORMATS = (".json", ".jsonl", ".csv")

Point = dict[str, Any]


def distributions(space: Callable[[Any], Any], draws: int = 30) -> dict[str, BaseDistribution]:
    """Every parameter that a space asks for, in a number of draws."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: dict[str, BaseDistribution] = {}
    for _ in range(draws):
        trial = study.ask()
        space(trial)
        found |= trial.distributions
    return found


def largest(space: Callable[[Any], Mapping[str, Any]], name: str, default: int, draws: int = 30) -> int:
    """The largest value that a setting, a whole number, has in a number of draws."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [default]
    for _ in range(draws):
        with contextlib.suppress(Exception):  # a user's own space may raise anything
            found.append(space(study.ask()).get(name, default))
    return max(value for value in found if type(value) is int)  # another one fails its trial, not the search


def still_to_propose(study: optuna.Study, points: Iterable[Mapping[str, Any]]) -> list[Point]:
    """The points that no trial of the study was made from, each once, in order."""
    seen = [trial.user_attrs.get(ENQUEUED) for trial in study.get_trials(deepcopy=False)]
    left: list[Point] = []
    for point in map(dict, points):
        if point not in seen and point not in left:
            left.append(point)
    return left


def read(path: Path, space: Mapping[str, BaseDistribution]) -> list[tuple[str, Point]]:
    """The points in a file, each with the place where it stands.

    Args:
        path: a JSON list of objects, JSON lines, or CSV with the names in its first line.
        space: every parameter that the search space may ask for.

    Raises:
        ValueError: no such file, another format, an unknown name or a value that the space does not have;
            names the file and, where there is one, the line.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"--enqueue {path}: its name must end with {', '.join(FORMATS)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--enqueue {path}: {_reason(error)}") from None
    rows = {".json": _json, ".jsonl": _json_lines, ".csv": _csv}[path.suffix](str(path), text)
    header = f"{path}:1" if path.suffix == ".csv" else None
    points = [(where, _checked(where, header or where, point, space)) for where, point in rows]
    if not points:
        raise ValueError(f"--enqueue {path}: there is no point in it")
    return points


def _json(path: str, text: str) -> Iterator[tuple[str, Point]]:
    """Element by element, so that each has its line."""

    def skip(place: int) -> int:
        return len(text) - len(text[place:].lstrip(" \t\r\n"))

    place = skip(0)
    if text[place : place + 1] != "[":
        raise ValueError(f"--enqueue {path}: expected a list of objects, [{{...}}, ...]")
    place = skip(place + 1)
    while text[place : place + 1] != "]":
        where = f"{path}:{1 + text.count(chr(10), 0, place)}"
        point, place = _object(where, path, text, place)
        yield where, point
        place = skip(place)
        if text[place : place + 1] == ",":
            place = skip(place + 1)
        elif text[place : place + 1] != "]":
            line = 1 + text.count("\n", 0, place)
            raise ValueError(f"--enqueue {path}:{line}: expected a comma or the end of the list")
    if text[place + 1 :].strip():
        raise ValueError(f"--enqueue {path}: there is something after the list")


def _json_lines(path: str, text: str) -> Iterator[tuple[str, Point]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            where = f"{path}:{number}"
            point, end = _object(where, where, line.strip(), 0)
            if end != len(line.strip()):
                raise ValueError(f"--enqueue {where}: there is something after the object")
            yield where, point


def _object(where: str, source: str, text: str, place: int) -> tuple[Point, int]:
    decoder = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_number)
    try:
        value, end = decoder.raw_decode(text, place)
    except json.JSONDecodeError as error:
        line = where if source == where else f"{source}:{error.lineno}"
        raise ValueError(f"--enqueue {line}: not JSON: {error.msg}") from None
    except ValueError as error:
        raise ValueError(f"--enqueue {where}: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"--enqueue {where}: expected an object, got {json.dumps(value)}")
    return value, end


def _once(pairs: Sequence[tuple[str, Any]]) -> Point:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is given twice")
    return dict(pairs)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no value")


def _csv(path: str, text: str) -> Iterator[tuple[str, Point]]:
    """Values stay text until the space says what they are; an empty cell gives none."""
    rows = csv.reader(text.splitlines())
    names = [name.strip() for name in next(rows, [])]
    if len(set(names)) < len(names):
        raise ValueError(f"--enqueue {path}:1: a name stands there twice")
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if len(row) > len(names):
            raise ValueError(f"--enqueue {where}: {len(row)} values for {len(names)} names")
        point = {name: _Text(cell.strip()) for name, cell in zip(names, row, strict=False) if cell.strip()}
        if point:
            yield where, point


class _Text(str):
    """A cell of a table, whose type is not known."""


def _checked(
    where: str, where_named: str, point: Mapping[str, Any], space: Mapping[str, BaseDistribution]
) -> Point:
    for name in point:
        if name not in space:
            raise ValueError(f"--enqueue {where_named}: {unknown('parameter', name, space)}")
    return {name: _value(where, name, value, space[name]) for name, value in point.items()}


def _value(where: str, name: str, value: Any, distribution: Any) -> Any:
    """The value as the space has it."""
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if _same(choice, value):
                return choice
        choices = ", ".join(str(choice) for choice in distribution.choices)
        raise ValueError(f"--enqueue {where}: {name} is {value!r}, the space has {choices}")
    number = _number(value)
    whole = isinstance(distribution, IntDistribution)
    if number is None or (whole and number != int(number)):
        raise ValueError(f"--enqueue {where}: {name} is {value!r}, not a {'whole ' * whole}number")
    if not distribution.low <= number <= distribution.high:
        span = f"{distribution.low:g} to {distribution.high:g}"
        raise ValueError(f"--enqueue {where}: {name} is {number:g}, the space has {span}")
    return int(number) if whole else number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, _Text)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _same(choice: Any, value: Any) -> bool:
    if isinstance(value, _Text):
        return str(choice) == value or (_number(choice) is not None and _number(choice) == _number(value))
    return bool(choice == value) and isinstance(choice, bool) == isinstance(value, bool)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
