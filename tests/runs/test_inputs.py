"""Tests of the inputs of a run, which a resume compares."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from grit_lightning.errors import ConfigError, DataError
from grit_lightning.runs.inputs import Inputs, _relative, describe, read, require_same, write
from support.samples import one_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "mine.jsonl").write_text("{}\n{}\n")
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / "images" / name).write_bytes(name.encode() * 10)
    (tmp_path / "judge.txt").write_text("Is it right?")
    return tmp_path


def inputs(folder: Path, known: Inputs | None = None, **groups: Any) -> Inputs:
    data = folder / "data"
    samples = [
        one_image(f"mine/{i}", "q", "a", data / "images" / name, (1, 1), (), "d", "train", f"{data / 'mine.jsonl'}:{i}")
        for i, name in enumerate(("a.png", "b.png"), start=1)
    ]
    written = {"prompt": {"template": "{question}"}, "reward": {"w": 1}, "judge": {"prompt": "${asset:x}"}} | groups
    resolved = written | {"judge": {"prompt": str(folder / "judge.txt")}}
    return describe(samples, written, resolved, known)


def test_the_same_inputs_are_the_same_after_a_round_trip(folder):
    before = inputs(folder)
    write(folder / "inputs.json", before)
    saved = read(folder / "inputs.json")
    assert saved == before
    assert require_same(folder, saved, inputs(folder, saved), []) == []


def test_a_run_without_stored_inputs_is_not_compared(folder):
    assert read(folder / "inputs.json") is None
    assert require_same(folder, None, inputs(folder), []) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": 1, "prompt": {}, "reward": {}, "judge": {}}'])
def test_a_damaged_file_is_named(folder, text):
    (folder / "inputs.json").write_text(text)
    with pytest.raises(DataError, match=r"inputs\.json: not the inputs of a run"):
        read(folder / "inputs.json")


def change_file(folder: Path) -> dict[str, Any]:
    (folder / "data" / "mine.jsonl").write_text("{}\n{ }\n")
    return {}


def change_image(folder: Path) -> dict[str, Any]:
    (folder / "data" / "images" / "b.png").write_bytes(b"B.png" * 10)  # of the same size
    os.utime(folder / "data" / "images" / "b.png", (5, 5))
    return {}


def change_judge_file(folder: Path) -> dict[str, Any]:
    (folder / "judge.txt").write_text("Is it nice?")
    return {}


@pytest.mark.parametrize(
    ("change", "group", "difference"),
    [
        (change_file, "data", "file mine.jsonl has changed"),
        (change_image, "data", "image images/b.png has changed"),
        (change_judge_file, "judge", "file of prompt has changed"),
        (lambda _: {"prompt": {"template": "{question}?"}}, "prompt", "template has changed"),
        (lambda _: {"reward": {"w": 1, "v": 2}}, "reward", "v is new"),
        (lambda _: {"reward": {}}, "reward", "w is gone"),
    ],
)
def test_a_difference_is_refused_by_name_unless_it_is_allowed(folder, change, group, difference):
    saved = inputs(folder)
    now = inputs(folder, saved, **change(folder))
    with pytest.raises(ConfigError) as error:
        require_same(folder, saved, now, ["something else"])
    assert str(error.value) == (
        f"{folder} was started with other inputs: {group}: {difference}; to go on with what is there now, give "
        f"'allow_changed=[{group}]'"
    )
    assert require_same(folder, saved, now, [group]) == [f"{group}: {difference}"]


def test_several_differences_are_counted(folder):
    saved = inputs(folder)
    change_file(folder)
    change_image(folder)
    with pytest.raises(ConfigError, match=r"file mine\.jsonl has changed, and 1 more;"):
        require_same(folder, saved, inputs(folder, saved), [])


def test_moved_or_copied_data_are_the_same(folder):
    saved = json.loads(json.dumps(inputs(folder)))
    moved = folder / "elsewhere"
    moved.mkdir()
    (folder / "data").rename(moved / "data")
    (folder / "judge.txt").rename(moved / "judge.txt")
    os.utime(moved / "data" / "images" / "a.png", (5, 5))  # a copy has another time
    assert require_same(moved, saved, inputs(moved, saved), []) == []


def test_images_of_the_same_size_and_time_are_not_read_again(folder, monkeypatch):
    saved = inputs(folder)
    image = folder / "data" / "images" / "a.png"
    read_files = []
    monkeypatch.setattr("grit_lightning.runs.inputs.sha256", lambda path: read_files.append(path.name) or "new")
    os.utime(image, (5, 5))
    inputs(folder, saved)
    assert read_files == ["mine.jsonl", "a.png", "judge.txt"]


def test_images_of_a_large_set_are_compared_by_size_and_time_without_reading_them(folder, monkeypatch):
    monkeypatch.setattr("grit_lightning.runs.inputs.HASHED_IMAGES", 1)
    read_files = []
    monkeypatch.setattr("grit_lightning.runs.inputs.sha256", lambda path: read_files.append(path.name) or "x")
    saved = json.loads(json.dumps(inputs(folder)))
    assert read_files == ["mine.jsonl", "judge.txt"]
    assert require_same(folder, saved, inputs(folder, saved), []) == []
    os.utime(folder / "data" / "images" / "a.png", (5, 5))
    with pytest.raises(ConfigError, match=r"data: image images/a\.png has changed;"):
        require_same(folder, saved, inputs(folder, saved), [])


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("/d/data/images/a.png", "/d/data"), ("/d/other/a.png", "/d/data"), ("/d/data_2/a.png", "/d/data"),
        ("/d/data/x/../a.png", "/d/data"), ("images/a.png", ""), ("/d/a.png", ""), ("/d/a.png", "/"),
    ],
)  # fmt: skip
def test_the_shortcut_of_relative_paths_changes_none(path, folder):
    assert _relative(path, folder) == os.path.relpath(path, folder or ".")
