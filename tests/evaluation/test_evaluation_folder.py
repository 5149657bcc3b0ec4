"""The folder of an evaluation, whenever its process is killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from grit_lightning.errors import DataError
from grit_lightning.evaluation.evaluation_folder import EvaluationFolder, complete, first_difference
from grit_lightning.evaluation.predictions import Prediction, write_predictions
from grit_lightning.types import Sample
from support.predicted import grounded, record, records

SAMPLES = [
    Sample(f"f/{number}", "q", "1", Path("x.png"), (9, 9), (), "vsr", "val", f"f:{number}") for number in range(4)
]


def of(number: int, text: str = "no") -> list[Prediction]:
    return [record(text, sample_id=f"f/{number}")]


@pytest.fixture
def folder(tmp_path: Path) -> EvaluationFolder:
    made = EvaluationFolder(tmp_path / "eval" / "one")
    made.begin({"prompt": "p"}, "a: 1\n")
    return made


def test_what_is_begun_is_no_longer_free(tmp_path: Path, folder: EvaluationFolder) -> None:
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


def test_settings_that_cannot_be_read(folder: EvaluationFolder) -> None:
    folder.settings_file.write_text("{")
    with pytest.raises(DataError, match=r"evaluation\.json: not valid JSON"):
        folder.settings()


def test_processes_write_side_by_side(folder: EvaluationFolder) -> None:
    folder.append(1, of(1))
    folder.append(0, of(0))
    folder.append(1, records(["a", "b"], sample_id="f/3"))
    found, problems = folder.predictions()
    assert (sorted(one["sample_id"] for one in found), problems) == (["f/0", "f/1", "f/3", "f/3"], [])


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_what_a_killed_process_left_of_a_line_is_passed_over(folder: EvaluationFolder, cut: int) -> None:
    folder.append(0, of(0))
    folder.append(0, of(1))
    content = folder.part(0).read_bytes()
    folder.part(0).write_bytes(content[:-cut])
    folder.append(0, of(2))
    folder.append(0, of(1))
    found, problems = folder.predictions()
    assert sorted(one["sample_id"] for one in found) == ["f/0", "f/1", "f/2"]
    # Only a line break was lost by the first cut: the line is whole, and its sample is there twice.
    assert [("torn" in str(problem), "twice" in str(problem)) for problem in problems] == [(cut > 1, cut == 1)]


def test_a_sample_of_which_a_completion_is_missing_is_not_complete() -> None:
    ones = [*records(["a", "b"], sample_id="f/0"), *records(["a"], sample_id="f/1"), *records(["a"], sample_id="z")]
    assert list(complete(ones, SAMPLES, 2)) == ["f/0"]
    assert list(complete(ones, SAMPLES, 1)) == ["f/0", "f/1"]
    assert [one["completion_index"] for one in complete(ones[::-1], SAMPLES, 2)["f/0"]] == [0, 1]
    assert list(complete(ones, [replace(SAMPLES[0], id="z")], 1)) == ["z"]


def test_at_the_end_there_is_one_file(folder: EvaluationFolder) -> None:
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


def test_killed_between_the_whole_file_and_the_end_of_the_parts(folder: EvaluationFolder) -> None:
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
def test_where_settings_differ(saved: dict, wanted: dict, expected: str | None) -> None:
    assert first_difference(saved, wanted) == expected
