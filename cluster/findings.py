"""A cluster file as text: where in it everything stands, and what is wrong with it as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

Path = tuple[str | int, ...]
"""Keys and positions from the top of a document to a value; the first is the document's number."""

Found = tuple[Path, str]
"""A place, and what is wrong there; within a document, where its number is left out."""

PLACEHOLDER = "CHANGEME"
MOST_VALUES = 20_000
"""Aliases of aliases of aliases can be billions."""
HINT = re.compile(r"# CHANGE: (.+)")
# Put together, so that no file that is shipped has such an address in it.
EVERY_ADDRESS = re.compile(
    r"(?<![\d.])" + r"\.".join("0000") + r"(?![\d.])|(?<![0-9a-fA-F:])::/0|\[::\]|host[= ]['\"]?::"
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HOST = re.compile(r"(?<![\w-])--(?:dashboard-)?(?:host|bind|listen)[= ]+['\"]?([^\s'\";]+)")


class Finding(NamedTuple):
    """Something that is wrong, and what to do about it."""

    where: Path | int
    """A place in the file; or its line, where YAML sees nothing (comments)."""
    text: str


class Scalar(NamedTuple):
    """One key, or one value that is neither a list nor a mapping."""

    where: Path
    line: int
    value: str


@dataclass(frozen=True)
class Text:
    """A file: its documents, and the line of everything in them."""

    raw: str
    documents: list[Any]
    lines: dict[Path, int]
    scalars: list[Scalar]
    hints: dict[int, str]
    """By line: what the comment there asks for."""

    def line(self, where: Path | int) -> int:
        """Of a place, or of the nearest thing around it that the file has."""
        if isinstance(where, int):
            return where
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


class _Loader(yaml.SafeLoader):
    """Says where a value stands that cannot be made, such as the date 2026-99-99."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            text = f"{node.tag.rpartition(':')[2]} {node.value!r:.40}: {error}"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark) from error


def read(text: str) -> Text:
    """A file's text.

    Raises:
        ValueError: it is no YAML, has a key twice, of which YAML would silently drop one, or has no end.
    """
    lines: dict[Path, int] = {}
    scalars: list[Scalar] = []
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        for number, node in enumerate(nodes):
            _walk(node, (number,), (), lines, scalars)
        documents = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # A sign that YAML does not know has a position only.
        line = mark.line if mark else text.count("\n", 0, getattr(error, "position", 0))
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ValueError(f"line {line + 1}: no YAML: {' '.join(problem.split())}") from error
    except RecursionError as error:
        raise ValueError("line 1: brackets in brackets, too deep to be a cluster file") from error
    hints = {
        number: found[1] for number, line in enumerate(text.splitlines(), 1) if (found := HINT.search(line))
    }
    return Text(text, documents, lines, scalars, hints)


def _walk(
    node: Any, where: Path, around: tuple[Any, ...], lines: dict[Path, int], scalars: list[Scalar]
) -> None:
    line = node.start_mark.line + 1
    if any(node is outer for outer in around):
        raise ValueError(f"line {line}: what starts here holds itself, by an alias (*)")
    if len(lines) > MOST_VALUES:
        raise ValueError(f"line {line}: more than {MOST_VALUES} values, too many for a cluster file")
    around = (*around, node)
    lines.setdefault(where, line)
    if isinstance(node, yaml.ScalarNode):
        scalars.append(Scalar(where, line, node.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, child in enumerate(node.value):
            _walk(child, (*where, position), around, lines, scalars)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"line {line}: a list or mapping cannot be a key")
            if key.value in seen:
                raise ValueError(f"line {line}: {key.value} stands here for the second time")
            seen.add(key.value)
            scalars.append(Scalar((*where, key.value), line, key.value))
            lines[(*where, key.value)] = line
            _walk(child, (*where, key.value), around, lines, scalars)


def placeholders(text: Text) -> Iterator[Finding]:
    """What the user has not filled in yet, each line once."""
    seen: set[int] = set()
    for where, line, value in text.scalars:
        if PLACEHOLDER in value and line not in seen:
            seen.add(line)
            hint = f": {text.hints[line]}" if line in text.hints else ""
            yield Finding(where, f"{value} is a placeholder; fill it in{hint}")


def open_addresses(text: Text) -> Iterator[Finding]:
    """Values that let everybody in, or listen to others than this machine."""
    for where, _, value in text.scalars:
        if EVERY_ADDRESS.search(value):
            yield Finding(
                where, "this is every address there is; serve on 127.0.0.1, let in your own address only"
            )
        elif any(host not in LOOPBACK for host in HOST.findall(value)):
            yield Finding(where, "a server here listens to other machines: have it serve on 127.0.0.1")
