"""Lazy re-exports: a package imports a public name from its module when the name is first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_face(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a module-level ``__getattr__`` that imports the public names of a package on first use.

    Importing a package stays cheap this way: ``--help`` and ``task=compare`` do not load torch.

    Args:
        package: the package's ``__name__``.
        names: public names by the module that defines them. No name may equal that of a module.
    """
    module_of = {name: module for module, listed in names.items() for name in listed}

    def __getattr__(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)  # later accesses find it without __getattr__
        return value

    return __getattr__
