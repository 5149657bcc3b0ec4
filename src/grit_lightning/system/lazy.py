"""Lazy faces of packages: a public name is imported from its module when it is first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_face(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the module-level ``__getattr__`` of a package that re-exports names without importing them yet.

    Importing a room must stay cheap: ``--help`` and ``task=compare`` do without torch.

    Args:
        package: the package's ``__name__``.
        names: the public names that each module of the package defines. None may be called like a module.
    """
    module_of = {name: module for module, listed in names.items() for name in listed}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)  # found directly from now on
        return value

    return __getattr__
