"""Tests of the package's layout, read from its sources: allowed imports, and limits on modules and rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).parents[1] / "src" / "grit_lightning"
CONF = PACKAGE.parents[1] / "conf"
LOOSE = {"__init__", "__main__", "errors", "types"}
MAX_LINES, MAX_MODULES = 250, 14

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "system": {"errors"},
    "grounding": {"types"},
    "runs": {"grounding", "system", "errors", "types"},
    "judge": {"grounding", "system", "errors", "types"},
    "data": {"grounding", "system", "errors", "types"},
    "app": {"judge", "runs", "system", "errors", "types"},
    "model": {"data", "grounding", "system", "errors", "types"},
    "rollout": {"model", "data", "system", "errors", "types"},
    "rewards": {"judge", "runs", "data", "grounding", "system", "errors", "types"},
    "evaluation": {"rollout", "rewards", "model", "judge", "runs", "grounding", "system", "errors", "types"},
    "report": {"evaluation", "runs", "data", "grounding", "system", "errors", "types"},
    "demo": {"report", "rollout", "rewards", "model", "runs", "data", "system", "errors", "types"},
    "training": {
        "report", "evaluation", "rollout", "rewards", "model", "judge", "runs", "data", "grounding", "system",
        "errors", "types",
    },
    "tasks": {
        "training", "demo", "report", "evaluation", "rollout", "rewards", "model", "app", "judge", "runs", "data",
        "grounding", "system", "errors", "types",
    },
    "synthetic": {"data"},
}  # fmt: skip
"""Rooms that each room may import besides itself. Imports point downwards only."""

WITHOUT_TORCH = ("grounding", "system", "judge", "app", "runs")
"""Rooms whose modules do not import torch at the top, so that commands without a model start at once …"""

TORCH_ALL_THE_SAME = {"app/startup.py"}
"""… with these exceptions."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def room_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", modules(), ids=name_of)
def test_imports_point_downwards(module: Path) -> None:
    room = room_of(module)
    if room in ("__init__", "__main__"):
        return
    found = {
        name.split(".")[1] for name in imports(ast.parse(module.read_text())) if name.startswith("grit_lightning.")
    }
    assert found - {"__version__", room} <= MAY_IMPORT[room]


def test_the_table_lists_every_room_and_has_no_cycle() -> None:
    rooms = {room_of(module) for module in modules()} - {"__init__", "__main__"}
    assert rooms == set(MAY_IMPORT)
    below: set[str] = set()
    for room in ("errors", "types", *(name for name in MAY_IMPORT if name not in ("errors", "types"))):
        assert MAY_IMPORT[room] <= below  # written from the bottom up, so nothing refers to what comes later
        below.add(room)


def test_only_rooms_types_and_errors_lie_at_the_top() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


@pytest.mark.parametrize("module", modules(), ids=name_of)
def test_no_module_exceeds_the_line_limit(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MAX_LINES


def test_no_room_exceeds_the_module_limit() -> None:
    for folder in {module.parent for module in modules()} - {PACKAGE / "tasks"}:
        assert len([path for path in folder.glob("*.py") if not path.stem.startswith("__")]) <= MAX_MODULES, folder


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_rooms_that_need_no_model_do_not_import_torch(room: str) -> None:
    for module in sorted((PACKAGE / room).rglob("*.py")):
        if name_of(module) in TORCH_ALL_THE_SAME:
            continue
        top = ast.Module([node for node in ast.parse(module.read_text()).body if not isinstance(node, ast.If)], [])
        own = [node for node in top.body if isinstance(node, ast.Import | ast.ImportFrom)]
        found = {name.split(".")[0] for node in own for name in imports(node)}
        assert not found & {"torch", "transformers", "lightning", "peft"}, module


def test_public_names_of_a_face_exist_and_are_no_modules() -> None:
    for face in sorted(PACKAGE.rglob("__init__.py")):
        tree = ast.parse(face.read_text())
        assert ast.get_docstring(tree), f"{face} does not say what the room is for"
        listed = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"]
        names = ast.literal_eval(listed[0].value) if listed else []
        package = ".".join(("grit_lightning", *face.parent.relative_to(PACKAGE).parts))
        room = __import__(package, fromlist=["*"])
        for name in names:
            assert not (face.parent / f"{name}.py").exists(), f"{package}.{name} is also a module"
            assert getattr(room, name) is not None


def targets(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


@pytest.mark.parametrize("file", sorted(CONF.rglob("*.yaml")), ids=lambda file: file.relative_to(CONF).as_posix())
def test_config_targets_are_public_names_of_rooms(file: Path) -> None:
    for target in targets(yaml.safe_load(file.read_text())):
        if target.startswith("grit_lightning."):
            package, _, name = target.rpartition(".")
            assert name in __import__(package, fromlist=["*"]).__all__, target


def test_every_test_file_lies_in_the_folder_of_its_room() -> None:
    tests = Path(__file__).parent
    elsewhere = {"integration", "support"}
    for file in sorted(tests.rglob("test_*.py")):
        place = file.relative_to(tests)
        if place.parts[0] in elsewhere or len(place.parts) == 1:
            continue
        assert (PACKAGE / place.parent).is_dir(), f"{place}: there is no such room"
