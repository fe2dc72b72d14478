"""A cluster file as text: where in it everything stands, and what is wrong with it as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

Path = tuple[str | int, ...]
"""Keys and positions from the top of a document to a value; the first is the document's number."""

PLACEHOLDER = "CHANGEME"
HINT = re.compile(r"# CHANGE: (.+)")
# Put together, so that no file that is shipped has such an address in it.
EVERY_ADDRESS = re.compile(
    r"(?<![\d.])" + r"\.".join("0000") + r"(?![\d.])|(?<![0-9a-fA-F:])::/0|\[::\]|host[= ]['\"]?::"
)
SECRETS = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a password in an address": re.compile(r"://[^/\s:@]*:[^/\s@$]+@"),
    "a token in a command": re.compile(
        r"(?:TOKEN|SECRET|PASSWORD|ACCESS_KEY(?:_ID)?|API_KEY)=[\"']?[^\s\"'$]", re.IGNORECASE
    ),
}
SECRET_KEYS = re.compile(
    r"^[^/]*(?:password|secret|api_?key|auth_?token|access_?key(?:_id)?|credentials|private_?key)$",
    re.IGNORECASE,
)
NO_SECRETS = {"ssh_private_key", "ssh_public_key"}
"""Keys that name a file."""


class Finding(NamedTuple):
    """Something that is wrong, and what to do about it."""

    where: Path
    text: str


class Scalar(NamedTuple):
    """One key, or one value that is neither a list nor a mapping."""

    where: Path
    line: int
    value: str


@dataclass(frozen=True)
class Text:
    """A file: its documents, and the line of everything in them."""

    documents: list[Any]
    lines: dict[Path, int]
    scalars: list[Scalar]
    hints: dict[int, str]
    """By line: what the comment there asks for."""

    def line(self, where: Path) -> int:
        """Of a place, or of the nearest thing around it that the file has."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read(text: str) -> Text:
    """A file's text.

    Raises:
        ValueError: it is no YAML, or has a key twice, of which YAML would silently drop one.
    """
    lines: dict[Path, int] = {}
    scalars: list[Scalar] = []
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{line}no YAML: {getattr(error, 'problem', None) or error}") from error
    for number, node in enumerate(nodes):
        _walk(node, (number,), lines, scalars)
    hints = {
        number: found[1] for number, line in enumerate(text.splitlines(), 1) if (found := HINT.search(line))
    }
    return Text(documents, lines, scalars, hints)


def _walk(node: Any, where: Path, lines: dict[Path, int], scalars: list[Scalar]) -> None:
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        scalars.append(Scalar(where, node.start_mark.line + 1, node.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            _walk(child, (*where, position), lines, scalars)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ValueError(f"line {line}: {key.value} stands here for the second time")
            seen.add(key.value)
            scalars.append(Scalar((*where, key.value), line, key.value))
            lines[(*where, key.value)] = line
            _walk(child, (*where, key.value), lines, scalars)


def placeholders(text: Text) -> Iterator[Finding]:
    """What the user has not filled in yet, each line once."""
    seen: set[int] = set()
    for where, line, value in text.scalars:
        if PLACEHOLDER in value and line not in seen:
            seen.add(line)
            hint = f": {text.hints[line]}" if line in text.hints else ""
            yield Finding(where, f"{value} is a placeholder; fill it in{hint}")


def open_addresses(text: Text) -> Iterator[Finding]:
    """Values that let everybody in, or listen to everybody."""
    for where, _, value in text.scalars:
        if EVERY_ADDRESS.search(value):
            yield Finding(
                where, "this is every address there is; serve on 127.0.0.1, let in your own address only"
            )


def secrets(text: Text) -> Iterator[Finding]:
    """What must not stand in a file that is copied, committed and shown."""
    for where, _, value in text.scalars:
        key = next((str(part) for part in reversed(where) if isinstance(part, str)), "")
        what = next((name for name, pattern in SECRETS.items() if pattern.search(value)), None)
        if what is None and value not in ("", key) and key not in NO_SECRETS and SECRET_KEYS.search(key):
            what = f"a {key}"
        if what is not None:
            yield Finding(
                where, f"{what} in the file; use an instance profile or a file of mode 0600 that is mounted"
            )
