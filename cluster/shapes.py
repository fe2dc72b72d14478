"""Whether a value has the fields and types that it should have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cluster.findings import Found, Path

Shape = dict[str, Any]
"""Fields of a mapping: a type or several, another shape, a list of one shape, texts that are known,
or one of the three below."""

ANY: Any = object()
"""Not looked into."""
MAPPING: Any = object()
"""Any fields."""
TEXT_TO_TEXT: Any = object()

NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def differences(value: Any, shape: Any, where: Path) -> Iterator[Found]:
    """Fields that do not exist, and values of the wrong type.

    Args:
        value: as YAML gives it.
        shape: what it should be.
        where: it stands.
    """
    from cofi_tune.data.names import closest

    name = next((str(part) for part in reversed(where) if isinstance(part, str)), "the document")
    if shape is ANY:
        return
    if shape is MAPPING or shape is TEXT_TO_TEXT:
        if not isinstance(value, dict):
            yield where, f"{name} is a mapping, not {_shown(value)}"
        elif shape is TEXT_TO_TEXT and not all(
            isinstance(text, str) for pair in value.items() for text in pair
        ):
            yield where, f"{name} maps text to text; write quotes around numbers and true, false"
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield where, f"{name} has fields ({', '.join(shape)}), and is not {_shown(value)}"
            return
        for key, child in value.items():
            if key in shape:
                yield from differences(child, shape[key], (*where, key))
            else:
                near = closest(str(key), shape)
                hint = f"; did you mean {near}?" if near else ""
                yield (*where, str(key)), f"unknown field {key}{hint}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield where, f"{name} is a list, not {_shown(value)}"
            return
        for position, child in enumerate(value):
            yield from differences(child, shape[0], (*where, position))
    elif isinstance(shape, frozenset):
        if not any(value == known for known in shape):
            yield where, f"{name} is one of {', '.join(sorted(shape))}, not {_shown(value)}"
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        kinds = " or ".join(NAMES[one] for one in (shape if isinstance(shape, tuple) else (shape,)))
        yield where, f"{name} is {kinds}, not {_shown(value)}"


def _shown(value: Any) -> str:
    """A value as a user wrote it: text in quotes, which tells it from a number."""
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"the text {value[:40]!r}" if isinstance(value, str) else str(value)[:40]
