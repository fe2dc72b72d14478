"""What a search varies: one file each; its name is the name on the command line, in MLflow and in reports.

A space is plain Python: `def space(draw) -> dict` asks for values and returns a proposal; one that depends on
the task takes its name too, `def space(draw, task)`. Names without a
slash are settings of the run, names under `<method>/` options of the method (`cofi_tune/config.py`). A name
is asked for under the name it has in the proposal. Beside it stand `REFERENCE`, the proposal that the
method's paper would make, and, where useful, `POINTS`: proposals that are tried first, in order, and `CHAIN`:
target sparsities that every proposal is pruned to one after another, in place of those it draws (`--chain`).
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import inspect
import pkgutil
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol


class Draw(Protocol):
    """What a space may ask for; `optuna.Trial` is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number within low..high."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number within low..high."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""


class Space(Protocol):
    """A space's function."""

    def __call__(self, draw: Draw, /) -> Mapping[str, Any]:
        """A proposal."""


class Loaded(NamedTuple):
    """A space, ready to propose."""

    name: str
    space: Space
    points: tuple[Mapping[str, Any], ...]
    """Proposals that are tried first."""
    digest: str
    """Of its source: a study goes on only with the space it began with."""
    chain: tuple[float, ...] = ()
    """Target sparsities that every proposal is pruned to, one after another; empty: those it draws."""


def names() -> list[str]:
    """Every space, by file name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str, task: str) -> Loaded:
    """The space in `search_spaces/<name>.py`, or in a file of one's own.

    Args:
        name: one of `names()`, or the path of a .py file, which is run.
        task: whose settings are searched, for spaces that depend on it.

    Raises:
        ValueError: there is none, or it is no space; names the nearest.
    """
    if name.endswith(".py") or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"--space {name}: no such file")
        return _loaded(path.stem, _run(path), path, task)
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"unknown space {name!r}; {hint}spaces: {', '.join(names())}, or the path of your own .py file"
        )
    module = importlib.import_module(f"{__name__}.{name}")
    assert module.__file__ is not None
    return _loaded(name, module, Path(module.__file__), task)


def _run(path: Path) -> ModuleType:
    module = ModuleType(f"search_spaces_own_{path.stem}")
    module.__file__ = str(path)
    try:
        # From its text: bytecode beside it would stand for a file that was changed twice within a second.
        vars(module).update(runpy.run_path(str(path)))
    except Exception as error:
        raise ValueError(f"--space {path}: {type(error).__name__}: {error}") from error
    return module


def _loaded(name: str, module: ModuleType, path: Path, task: str) -> Loaded:
    space = getattr(module, "space", None)
    if not callable(space):
        raise ValueError(f"--space {path}: it has no function space(draw)")
    if "task" in inspect.signature(space).parameters:
        space = functools.partial(space, task=task)
    reference = getattr(module, "REFERENCE", None)
    points = getattr(module, "POINTS", None) or ([reference] if reference else [])
    # Of the syntax tree: a comment or a line break makes no other space.
    digest = hashlib.sha256(ast.dump(ast.parse(path.read_bytes())).encode()).hexdigest()[:16]
    return Loaded(name, space, tuple(points), digest, tuple(getattr(module, "CHAIN", ())))
