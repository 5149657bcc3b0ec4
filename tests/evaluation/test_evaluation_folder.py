"""Tests of the evaluation folder, including folders left by a killed process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from grit_lightning.errors import DataError
from grit_lightning.evaluation.evaluation_folder import EvaluationFolder, complete, first_difference
from grit_lightning.evaluation.predictions import Prediction, write_predictions
from support.predicted import grounded, record, records
from support.samples import one_image

SAMPLES = [
    one_image(f"f/{number}", "q", "1", Path("x.png"), (9, 9), (), "vsr", "val", f"f:{number}") for number in range(4)
]


def of(number: int, text: str = "no") -> list[Prediction]:
    return [record(text, sample_id=f"f/{number}")]


@pytest.fixture
def folder(tmp_path: Path) -> EvaluationFolder:
    made = EvaluationFolder(tmp_path / "eval" / "one")
    made.begin({"prompt": "p"}, "a: 1\n")
    return made


def test_a_folder_is_free_until_it_holds_predictions_or_other_files(tmp_path: Path, folder: EvaluationFolder) -> None:
    assert folder.is_free(), "nothing is answered yet"
    folder.append(0, of(0))
    assert not folder.is_free()
    assert folder.settings() == {"prompt": "p"}
    assert folder.config_file.read_text() == "a: 1\n"
    other = EvaluationFolder(tmp_path / "other")
    assert (other.is_free(), other.settings()) == (True, None)
    other.path.mkdir()
    other.lock_file.touch()
    assert other.is_free()
    (other.path / "x").touch()
    assert not other.is_free()
    assert not EvaluationFolder(other.path / "x").is_free()


def test_unreadable_settings_are_a_data_error(folder: EvaluationFolder) -> None:
    folder.settings_file.write_text("{")
    with pytest.raises(DataError, match=r"evaluation\.json: not valid JSON"):
        folder.settings()


def test_processes_write_parts_that_are_read_together(folder: EvaluationFolder) -> None:
    folder.append(1, of(1))
    folder.append(0, of(0))
    folder.append(1, records(["a", "b"], sample_id="f/3"))
    found, problems = folder.predictions()
    assert (sorted(one["sample_id"] for one in found), problems) == (["f/0", "f/1", "f/3", "f/3"], [])


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_torn_line_of_a_killed_process_is_skipped(folder: EvaluationFolder, cut: int) -> None:
    folder.append(0, of(0))
    folder.append(0, of(1))
    content = folder.part(0).read_bytes()
    folder.part(0).write_bytes(content[:-cut])
    folder.append(0, of(2))
    folder.append(0, of(1))
    found, problems = folder.predictions()
    assert sorted(one["sample_id"] for one in found) == ["f/0", "f/1", "f/2"]
    # Only a line break was lost by the first cut: the line is whole, and its sample is there twice.
    assert [("cut off" in str(problem), "twice" in str(problem)) for problem in problems] == [(cut > 1, cut == 1)]


def test_a_sample_with_a_missing_completion_is_incomplete() -> None:
    ones = [*records(["a", "b"], sample_id="f/0"), *records(["a"], sample_id="f/1"), *records(["a"], sample_id="z")]
    assert list(complete(ones, SAMPLES, 2)) == ["f/0"]
    assert list(complete(ones, SAMPLES, 1)) == ["f/0", "f/1"]
    assert [one["completion_index"] for one in complete(ones[::-1], SAMPLES, 2)["f/0"]] == [0, 1]
    assert list(complete(ones, [replace(SAMPLES[0], id="z")], 1)) == ["z"]


def test_finish_joins_the_parts_into_one_file(folder: EvaluationFolder) -> None:
    folder.append(0, of(0))
    folder.append(3, of(1))
    ones = [*of(0), *of(1)]
    folder.finish(ones, {"metrics": {}})
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "config.yaml",
        "evaluation.json",
        "metrics.json",
        "predictions.jsonl",
    ]
    assert folder.predictions() == (ones, [])


def test_the_joined_file_wins_over_parts_left_by_a_killed_process(folder: EvaluationFolder) -> None:
    folder.append(0, of(0))
    folder.append(0, of(1))
    write_predictions(folder.predictions_file, [*of(0, grounded()), *of(1, grounded())])
    found, problems = folder.predictions()
    assert ([one["text"] for one in found], problems) == ([grounded()] * 2, []), "the whole file counts"


@pytest.mark.parametrize(
    ("saved", "wanted", "expected"),
    [
        ({"a": 1, "b": {"c": [1]}}, {"b": {"c": [1]}, "a": 1}, None),
        ({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [2]}}, "b.c"),
        ({"a": 1}, {"a": 1, "b": 2}, "b"),
        ({"a": 1, "b": 2}, {"a": 1}, "b"),
        ({"a": {"b": 1}}, {"a": "greedy"}, "a"),
    ],
)
def test_first_difference_names_the_path_of_the_key(saved: dict, wanted: dict, expected: str | None) -> None:
    assert first_difference(saved, wanted) == expected
