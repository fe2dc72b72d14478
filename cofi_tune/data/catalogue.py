"""Finds the tasks: every file of `cofi_tune/tasks/` is one, imported when it is asked for by name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil

from cofi_tune.data.names import unknown
from cofi_tune.data.task import Task

FOLDER = "cofi_tune.tasks"


def names() -> list[str]:
    """Every task there is."""
    spec = importlib.util.find_spec(FOLDER)
    assert spec is not None
    found = (module.name for module in pkgutil.iter_modules(spec.submodule_search_locations))
    return sorted(name for name in found if not name.startswith("_"))


def load(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: there is none; says which is nearest, and which there are.
    """
    if name not in names():
        raise ValueError(unknown("task", name, names()))
    task: Task = importlib.import_module(f"{FOLDER}.{name}").TASK
    return task
