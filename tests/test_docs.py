"""Tests of the public documentation against the repository: paths, links, tables, commands, config keys and names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import OmegaConf

from grit_lightning.app import config
from grit_lightning.app.former_names import FORMER_KEYS
from grit_lightning.system.paths import conf_dir

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "grit_lightning"
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    PACKAGE / "assets" / "tiny" / "README.md",
]
GROUPS = [path.name for path in conf_dir().iterdir() if path.is_dir() and path.name not in ("hydra", "debug")]

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
TEST = re.compile(r"(?:[\w./]*::)?(?:Test\w+::)?(test_\w+)(?:\[.*\])?")
KEY = re.compile(r"[a-z_]\w*(?:\.\w+)+")
FILE_ENDINGS = (".py", ".md", ".txt", ".json", ".jsonl", ".yaml", ".csv", ".png", ".ckpt")
PLACEHOLDER = re.compile(r"[A-Z]{2,}")
"""A word in capitals is a placeholder for a name that the reader chooses."""

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())


def prose(page: Path) -> str:
    """Return the page without its indented and fenced blocks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return "\n".join(line for line in text.splitlines() if not line.startswith("    "))


def code_spans(page: Path) -> list[str]:
    return CODE.findall(prose(page))


def slugs(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_pages_hold_what_these_tests_check() -> None:
    spans = [span for page in PAGES for span in code_spans(page)]
    assert sum(len(LINK.findall(page.read_text())) for page in PAGES) > 20
    assert sum(len(list(tables(page))) for page in PAGES) > 20
    assert sum(TEST.fullmatch(span) is not None for span in spans) > 10
    assert sum(PATH.fullmatch(span) is not None and "/" in span for span in spans) > 50
    assert sum(KEY.fullmatch(span.partition("=")[0]) is not None for span in spans) > 50
    assert len(commands()) > 20


@pages
def test_every_link_leads_to_a_file_or_heading(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in slugs(target), f"{page.name}: {link}"


@pages
def test_every_table_has_as_many_cells_in_each_row(page: Path) -> None:
    for first, table in tables(page):
        rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in table]
        assert len(table) >= 2, f"{page.name}:{first}: a row without a table"
        assert re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", table[1].strip()), f"{page.name}:{first + 1}: no separator"
        for offset, row in enumerate(rows):
            assert len(row) == len(rows[0]), f"{page.name}:{first + offset}: {table[offset]}"


def tables(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the lines of each table."""
    block: list[str] = []
    for number, line in enumerate([*page.read_text().splitlines(), ""], start=1):
        if line.startswith("|"):
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


@pages
def test_every_path_of_the_repository_exists(page: Path) -> None:
    tops = {path.name for path in REPOSITORY.iterdir() if path.is_dir()} - {"runs", "src"}
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    for span in code_spans(page):
        path = span.partition("::")[0]
        if not PATH.fullmatch(path) or PLACEHOLDER.search(path):
            continue
        first = path.partition("/")[0]
        if path.endswith(".py") and "/" not in path:
            if path.startswith(("my_", "test_")):
                continue
            assert [*PACKAGE.rglob(path), *(REPOSITORY / "benchmarks").rglob(path)], f"{page.name}: {span}"
        elif "/" in path and (first in tops or first == "src"):
            assert (REPOSITORY / path).exists() or first == "data", f"{page.name}: {span}"
        elif path.endswith((".py", "/")) and first in rooms and "/" in path:
            places = (PACKAGE / path, REPOSITORY / "conf" / path, REPOSITORY / path)
            assert any(place.exists() for place in places) or first == "runs", f"{page.name}: {span}"


@pages
def test_every_test_that_is_named_exists(page: Path) -> None:
    for span in code_spans(page):
        if span.endswith(".py") and Path(span).name.startswith("test_"):
            assert [*(REPOSITORY / "tests").rglob(Path(span).name)], f"{page.name}: {span}"
        elif match := TEST.fullmatch(span):
            assert match[1] in names_of_tests(), f"{page.name}: {span}"


@cache
def names_of_tests() -> set[str]:
    files = (REPOSITORY / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}


@pages
def test_every_dotted_name_of_the_package_can_be_imported(page: Path) -> None:
    for name in re.findall(r"(?<![\w/.-])grit_lightning(?:\.\w+)+", page.read_text()):
        assert get_object(name) is not None, f"{page.name}: {name}"


@pages
def test_every_config_key_in_prose_exists(page: Path) -> None:
    for span in code_spans(page):
        key = span.lstrip("+~").partition("=")[0]
        if KEY.fullmatch(key) and key.partition(".")[0] in {*GROUPS, "task"} and not key.endswith(FILE_ENDINGS):
            known = key in known_keys() or key in FORMER_KEYS or f"{PACKAGE.name}.{key}" in importable()
            assert known, f"{page.name}: {span}"


@cache
def importable() -> set[str]:
    """Return the dotted names of modules and their members, which prose may write without the package's name."""
    names = set()
    for file in PACKAGE.rglob("*.py"):
        module = ".".join(("grit_lightning", *file.relative_to(PACKAGE).with_suffix("").parts))
        names |= {module, *(f"{module}.{name}" for name in re.findall(r"^(?:def|class) (\w+)", file.read_text(), re.M))}
    return names


@cache
def known_keys() -> frozenset[str]:
    """Return every config key that occurs with some choice of options."""
    found: set[str] = set()
    for group in GROUPS:
        for file in sorted((conf_dir() / group).glob("*.yaml")):
            sign = "+" if group == "experiment" else ""
            of_task = ["task=bench"] if group == "suite" else []  # no other task has suites
            found |= set(flat(composed(*of_task, f"{sign}{group}={file.stem}")))
    return frozenset(found)


def flat(node: Any, path: str = "") -> Iterator[str]:
    values = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in values:
        here = f"{path}.{key}" if path else str(key)
        yield here
        yield from flat(value, here)


def composed(*overrides: str) -> dict[str, Any]:
    config.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        values = OmegaConf.to_container(compose("config", list(overrides)), resolve=False)
    assert isinstance(values, dict)
    return values


def commands() -> list[tuple[str, str]]:
    """Return the page and the overrides of each command of the application."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in re.findall(r"^ {4,}(?:\w+=\S+ )*python -m grit_lightning( .*)?$", text, flags=re.M):
            found.append((page.name, line.partition("  #")[0].strip()))
        found += [(page.name, line) for line in re.findall(r"make run ARGS=\"([^\"]+)\"", text)]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda text: str(text)[:60])
def test_every_command_composes(page: str, command: str) -> None:
    words = shlex.split(command)
    if "--config-dir" in words:  # the reader's own folder
        words = [word for word in words if word not in ("--config-dir", "myconf", "reward=mine")]
    overrides = OverridesParser.create().parse_overrides([word for word in words if not word.startswith("-")])
    chosen, values = [], []
    for override in overrides:
        key = override.key_or_group
        is_group = (conf_dir() / key).is_dir()
        options = str(override.value()) if not override.is_sweep_override() else ""
        if is_group and options and not PLACEHOLDER.fullmatch(options):
            chosen.append(override.input_line)
        elif not override.is_add() and not is_group and not key.startswith("hydra"):  # Hydra's own, of its plugins
            values.append(key)
    keys = set(flat(composed(*chosen)))
    assert set(values) <= keys


def test_the_readme_is_one_page() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150
