"""Tells transformers of this package's architecture, without importing transformers before anybody wants it."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

AUTO = "transformers.models.auto.modeling_auto"
"""The module that maps configurations to models; once it is there, models can be registered."""


def register_later() -> None:
    """Register now if transformers' auto classes are loaded, else at the moment they are."""
    if AUTO in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Lets the module be found and run as ever, then registers."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != AUTO:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            sys.modules.setdefault(AUTO, module)
            _register()

        loader.exec_module = run_and_register
        return spec


def _register() -> None:
    importlib.import_module("probes.models.secret_mixture")  # registers itself at its end
