"""Tests of the sources of a comparison: finding predictions, naming columns, and describing the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from grit_lightning.errors import DataError
from grit_lightning.evaluation.comparison.sources import Source, column_names, find, read
from grit_lightning.evaluation.evaluation_folder import EvaluationFolder
from grit_lightning.evaluation.predictions import write_predictions
from grit_lightning.model.backbones.prompts import known_prompts
from support.compared import SETTINGS, answer, answers, write_evaluation

ONES = answers({"f/1": 1.0, "f/2": 0.0})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has not been evaluated."""
    (tmp_path / "run" / "eval").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text("{}")
    return tmp_path / "run"


def test_an_evaluation_folder_and_its_file_are_the_same_source(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", ONES)
    file = folder / "predictions.jsonl"
    assert find(folder) == Source(folder, file, EvaluationFolder(folder))
    assert find(file) == Source(file, file, EvaluationFolder(folder))
    alone = tmp_path / "alone.jsonl"
    write_predictions(alone, ONES)
    assert find(alone) == Source(alone, alone, None)
    write_predictions(folder / "other.jsonl", ONES)
    assert find(folder / "other.jsonl").folder is None, "the settings are not of that file"


def test_a_run_is_represented_by_its_newest_finished_evaluation(run: Path) -> None:
    write_predictions(run / "eval" / "after.jsonl", ONES)
    assert find(run) == Source(run, run / "eval" / "after.jsonl", None)
    (run / "eval" / "training").mkdir()  # held-out samples every few steps
    old, new, begun = (write_evaluation(run / "eval" / name, ONES) for name in ("z_old", "new", "begun"))
    os.utime(old / "metrics.json", (1, 1))
    (begun / "metrics.json").unlink()
    assert find(run) == Source(run, new / "predictions.jsonl", EvaluationFolder(new))


def test_a_path_without_predictions_is_refused_by_name(run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run: this run has not been evaluated yet: task=evaluate run=/\S+/run$"):
        find(run)
    with pytest.raises(DataError, match="nowhere: does not exist; expected a run, the folder of an evaluation, or a f"):
        find(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"is neither a run \(no manifest.json\) nor an evaluation \(no evaluation.js"):
        find(tmp_path)
    torn = tmp_path / "torn.jsonl"
    torn.write_text("{")
    with pytest.raises(DataError, match=r"torn.jsonl: holds no prediction that can be used: \S+torn.jsonl:1: not val"):
        read(find(torn), "torn")


def test_an_evaluation_that_was_stopped_is_read_as_far_as_it_got(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", ONES)
    (folder / "predictions.jsonl").rename(folder / "predictions.part0.jsonl")
    (folder / "metrics.json").unlink()
    with (folder / "predictions.part0.jsonl").open("a") as file:
        file.write('{"sample_id"')
    column, problems = read(find(folder), "a")
    assert (list(column.predictions), column.finished) == (ONES, False)
    assert column.how().endswith("2 samples, not finished")
    assert len(problems) == 1


def test_how_describes_weights_prompt_decoding_and_judge(tmp_path: Path) -> None:
    column, problems = read(find(write_evaluation(tmp_path / "a", ONES)), "a")
    assert problems == []
    assert column.how() == "tiny, prompt grounded, greedy, up to 112 tokens, judged by exact match, 2 samples"
    drawn: dict[str, Any] = {"num_generations": 2, "temperature": 0.7, "top_k": 0, "top_p": 1.0, "seed": 3}
    made = {
        **SETTINGS,
        "weights": {"checkpoint": "Qwen/Q", "run": "0a1b", "step": 80},
        "decoding": {"max_new_tokens": 64, "stop": "</answer>", "sampling": drawn},
    }
    twice = [answer("f/1", 1.0, index=index, prompt_version=known_prompts()["plain"]) for index in (0, 1)]
    column, _ = read(find(write_evaluation(tmp_path / "b", twice, made)), "b")
    assert column.how() == (
        "Qwen/Q trained for 80 steps, prompt plain, 2 completions per sample (temperature 0.7, top_k 0, top_p 1.0, "
        "seed 3), up to 64 tokens, judged by exact match, 1 sample"
    )
    alone = tmp_path / "alone.jsonl"
    write_predictions(alone, [answer("f/1", 1.0, prompt_version="0a1b", judge="x"), answer("f/2", 1.0, judge="y")])
    column, _ = read(find(alone), "alone")
    assert column.how() == "prompt 0a1b and grounded, decoding not recorded, judged by x and y, 2 samples"
    write_predictions(alone, twice)
    assert "2 completions per sample" in read(find(alone), "alone")[0].how()


def test_unreadable_settings_are_a_problem_but_no_error(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "a", ONES)
    (folder / "evaluation.json").write_text("{")
    column, problems = read(find(folder), "a")
    assert column.settings is None
    assert [str(one).partition(" (")[0] for one in problems] == [f"{folder}/evaluation.json: not valid JSON"]


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (["/x/a", "/x/b"], ["a", "b"]),
        (["/x/eval/greedy", "/y/eval/greedy"], ["x/greedy", "y/greedy"]),
        (["/x/a/predictions.jsonl", "/x/b/predictions.jsonl"], ["a", "b"]),
        (["/run/eval/before.jsonl", "/run/eval/after.jsonl"], ["before", "after"]),
        (["/x/eval/after.jsonl", "/y/eval/after.jsonl"], ["x/after", "y/after"]),
        (["/runs/2026-01-31_10-00-00_base", "/runs/2026-02-01_11-00-00_lora"], ["base", "lora"]),
        (["/r/2026-01-31_10-00-00_g", "/r/2026-02-01_11-00-00_g"], ["2026-01-31_10-00-00_g", "2026-02-01_11-00-00_g"]),
        (["/x/a", "/x/b", "/x/a"], ["a", "b", "a (2)"]),
        (["/x/a", "/x/a (2)", "/x/a"], ["a", "a (2)", "a (3)"]),
        ([f"/x/{40 * 'm'}a", f"/x/{40 * 'm'}b"], [f"…{30 * 'm'}a", f"…{30 * 'm'}b"]),
        (["/a/m/x", "/b/m/x", "/b/n/x"], ["a/m/x", "b/m/x", "b/n/x"]),
    ],
)
def test_column_names_are_short_and_distinct(entries: list[str], names: list[str]) -> None:
    assert column_names([Source(Path(entry), Path(entry), None) for entry in entries]) == names


def test_a_run_is_named_by_its_folder() -> None:
    file = Path("eval/greedy/predictions.jsonl")
    runs = [Source(Path(name), Path(name) / file, None) for name in ("/r/x", "/r/y")]
    assert column_names(runs) == ["x", "y"]
    evaluation = Source(Path("/r/x/eval/greedy"), Path("/r/x") / file, None)
    assert column_names([runs[0], evaluation]) == ["x", "greedy"]


def test_a_pipe_is_named_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(DataError, match=r"/pipe\.jsonl: is not a regular file$"):
        find(tmp_path / "pipe.jsonl")
