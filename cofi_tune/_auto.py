"""Make transformers' auto classes know our model type, without importing transformers ourselves."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

AUTO_MODULE = "transformers.models.auto.modeling_auto"


def register_when_imported() -> None:
    """Register now if transformers' auto classes are loaded, else at the moment they are."""
    if AUTO_MODULE in sys.modules:
        _register()
    elif not any(isinstance(finder, _AutoFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoFinder())


def _register() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig
    from transformers.models.auto.modeling_auto import AutoModelForSequenceClassification

    from cofi_tune.modeling_cofi import CofiConfig, CofiForSequenceClassification

    AutoConfig.register(CofiConfig.model_type, CofiConfig, exist_ok=True)
    AutoModelForSequenceClassification.register(CofiConfig, CofiForSequenceClassification, exist_ok=True)


class _AutoFinder(importlib.abc.MetaPathFinder):
    """Wraps the loader of one module, and answers for no other."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != AUTO_MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    """Executes the module as usual, then registers."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _register()
