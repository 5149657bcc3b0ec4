"""Tests of what data.train and data.val may list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grit_lightning.data.listing import DataFile, DrawnQuestions, listed
from grit_lightning.errors import ConfigError


def data(file: Path, image: str = "a.png", at: str = "images") -> Path:
    (file.parent / at).mkdir(parents=True, exist_ok=True)
    (file.parent / at / image).touch()
    file.write_text(json.dumps({"image": image}) + "\n")
    return file


def test_entries_with_an_image_folder_are_relative_to_the_root():
    found = listed(Path("/root"), "train", [{"file": "a.jsonl", "images": "pictures"}])
    assert found.files == [DataFile(Path("/root/a.jsonl"), Path("/root/pictures"))]


@pytest.mark.parametrize("at", ["images", "."])
def test_the_images_of_a_path_lie_beside_it_or_in_images(tmp_path, monkeypatch, at):
    data(tmp_path / "mine.jsonl", at=at)
    monkeypatch.chdir(tmp_path)
    expected = [DataFile(tmp_path / "mine.jsonl", tmp_path / at)]
    assert listed(Path("/root"), "train", "mine.jsonl").files == expected
    assert listed(Path("/root"), "train", [str(tmp_path / "mine.jsonl")]).files == expected


@pytest.mark.parametrize("at", ["images", "."])
def test_several_images_of_a_path_lie_beside_it_or_in_images(tmp_path, at):
    file = data(tmp_path / "mine.jsonl", at=at)
    file.write_text(json.dumps({"images": [{"image": "a.png"}, {"image": "b.png"}]}))
    assert listed(tmp_path, "train", str(file)).files == [DataFile(file, tmp_path / at)]


def test_image_names_may_hold_the_folder(tmp_path):
    file = tmp_path / "mine.jsonl"
    data(file)
    file.write_text(json.dumps({"image": "images/a.png"}))
    assert listed(tmp_path, "val", str(file)).files == [DataFile(file, tmp_path)]


def test_a_folder_stands_for_its_files(tmp_path):
    one, two = data(tmp_path / "one.jsonl"), data(tmp_path / "two.jsonl")
    assert [found.file for found in listed(tmp_path, "train", str(tmp_path)).files] == [one, two]
    assert [found.file for found in listed(tmp_path, "val", str(tmp_path)).files] == [one, two]
    train, val = data(tmp_path / "train.jsonl"), data(tmp_path / "val.jsonl")
    assert [found.file for found in listed(tmp_path, "train", str(tmp_path)).files] == [train]
    assert [found.file for found in listed(tmp_path, "val", str(tmp_path)).files] == [val]


def test_a_file_or_folder_that_is_missing_is_listed_so_that_it_can_be_named(tmp_path):
    (tmp_path / "empty").mkdir()
    files = listed(tmp_path, "train", [str(tmp_path / "no.jsonl"), str(tmp_path / "empty")]).files
    assert [found.file for found in files] == [tmp_path / "no.jsonl", tmp_path / "empty" / "train.jsonl"]


def test_generated_questions_have_defaults():
    found = listed(Path(), "val", [{"shapes": 3}, {"shapes": 2, "seed": 9, "difficulty": "hard", "folder": "f"}])
    assert found.files == []
    assert found.drawn == [DrawnQuestions(3, 1, "standard", None), DrawnQuestions(2, 9, "hard", "f")]


def test_nothing_is_listed_for_null():
    assert listed(Path(), "val", None) == ([], [])


@pytest.mark.parametrize(
    ("what", "entry", "message"),
    [
        (
            "train",
            {"file": "a.jsonl"},
            r"data\.train\[1\] is \{'file': 'a\.jsonl'\}; expected a JSONL file, a folder, or",
        ),
        ("train", {"shapes": 3}, r"data\.train\[1\] is "),
        ("val", 3, r"data\.val\[1\] is 3; expected"),
        ("val", {"file": 3, "images": "x"}, r"data\.val\[1\] is "),
        ("val", {"shapes": 0}, r"data\.val\[1\]\.shapes is 0, expected a whole number of at least 1"),
        ("val", {"shapes": True}, r"data\.val\[1\]\.shapes is True"),
        ("val", {"shapes": 1, "seed": -1}, r"data\.val\[1\]\.seed is -1"),
        ("val", {"shapes": 1, "difficulty": "easy"}, r"difficulty is easy; expected one of standard, hard, early"),
        ("val", {"shapes": 1, "colour": "red"}, r"data\.val\[1\]\.colour is unknown"),
    ],
)
def test_an_entry_of_another_form_is_refused_by_its_place(what, entry, message):
    with pytest.raises(ConfigError, match=message):
        listed(Path(), what, ["a.jsonl", entry])
