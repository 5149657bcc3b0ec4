"""Tests of lazy re-exports: a public name is imported on first use."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

FACE = """
from grit_lightning.system.lazy import lazy_face

__getattr__ = lazy_face(__name__, {"numbers": ["ONE", "TWO"]})
"""

ROOMS = ["data", "evaluation", "grounding", "judge", "model", "rewards", "rollout", "runs", "tasks", "training"]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package whose face exports ``ONE`` and ``TWO`` of its module ``numbers``."""
    folder = tmp_path / "lazy_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(FACE)
    (folder / "numbers.py").write_text("ONE, TWO, HIDDEN = 1, 2, 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("lazy_package", "lazy_package.numbers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("lazy_package")


def test_a_name_is_imported_on_first_use_and_found_directly_afterwards(package: ModuleType) -> None:
    assert "lazy_package.numbers" not in sys.modules
    assert "TWO" not in vars(package)
    assert package.TWO == 2
    assert "lazy_package.numbers" in sys.modules
    assert vars(package)["TWO"] == 2
    assert "ONE" not in vars(package)


@pytest.mark.parametrize("name", ["THREE", "HIDDEN"])
def test_an_unlisted_name_is_an_attribute_error(package: ModuleType, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"^module 'lazy_package' has no attribute '{name}'$"):
        getattr(package, name)
    assert "lazy_package.numbers" not in sys.modules


def test_importing_the_rooms_imports_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, importlib\n"
        f"for room in {ROOMS}: importlib.import_module('grit_lightning.' + room)\n"
        "print(sorted({'torch', 'transformers', 'lightning', 'peft'} & set(sys.modules)))\n"
        "from grit_lightning.grounding import iou\n"
        "print(iou((0, 0, 2, 1), (1, 0, 2, 1)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "0.5"]
