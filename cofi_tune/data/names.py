"""What to say when a name is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, names: Iterable[str]) -> str:
    """One line: the name, the nearest valid one, and all that exist.

    Args:
        kind: what was named, such as "task".
        name: what the user wrote.
        names: what exists.
    """
    known = list(names)
    nearest = closest(name, known)
    hint = f"did you mean {nearest}? " if nearest else ""
    return f"unknown {kind} {name!r}; {hint}{kind}s: {', '.join(known)}"


def closest(name: str, names: Iterable[str]) -> str | None:
    """The valid name that is nearest to what was written, if any is near (`STS-B` -> `stsb`)."""
    by_letters = {_letters(known): known for known in names}
    found = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=0.5)
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
