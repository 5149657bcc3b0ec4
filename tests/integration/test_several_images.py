"""Tests of samples with several images, options and further fields, through every command of a user."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.runs.run_folder import RunFolder
from support.commands import succeeded

FAST = ("threads=1", "trainer.accelerator=cpu", "trainer.max_steps=2", "rollout.max_new_tokens=24")
SMALL = ("data.prompts_per_step=2", "rollout.num_generations=2", "data.max_prompt_tokens=600")


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: questions about two scenes each, and a reward that reads a further field."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "images").mkdir()
    drawn = draw_dataset(count=4, seed=3, split="train")
    images = list(drawn.images.items())[:4]
    for name, image in images:
        image.save(folder / "images" / name)
    records = [
        {
            "question": question,
            "answer": answer,
            "images": [{"image": name, "width": image.width, "height": image.height} for name, image in pair],
            "bboxs": [
                {"bbox_2d": [10, 10, 60, 60], "label": "shape", "image": 1},
                {"bbox_2d": [20, 30, 80, 90], "image": 2},
            ],
            "options": ["yes", "no"],
            "difficulty": {"level": level},
        }
        for level, (question, answer, pair) in enumerate(
            [
                ("Is <image> like <image>?", "B", images[:2]),
                ("Is the circle of the first above that of the second?", "yes", images[1:3]),
                ("Are they equal?\n<image>\n<image>", "no", images[2:4]),
                ("Is one red?", "A", [images[0], images[3]]),
            ]
        )
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "my_rewards.py").write_text(
        "def level(sample, completion):\n    return float(sample.extra['difficulty']['level'])\n"
    )
    (folder / "conf" / "reward").mkdir(parents=True)
    (folder / "conf" / "reward" / "mine.yaml").write_text(
        "defaults: [grit, _self_]\n"
        "components:\n  level: {weight: 1.0, fn: {_target_: my_rewards.level, _partial_: true}}\n"
    )
    return folder


@pytest.fixture(scope="module")
def run(cli, folder: Path) -> Path:
    succeeded(
        cli(
            "--config-dir", "conf", "reward=mine", "data.train=mine.jsonl", "data.val=mine.jsonl", "out=run",
            *FAST, *SMALL, cwd=folder,
        )
    )  # fmt: skip
    return folder / "run"


def test_validate_counts_the_tokens_of_all_images(cli, folder: Path) -> None:
    shown = succeeded(cli("task=validate", "data.train=mine.jsonl", "data.val=null", *SMALL, cwd=folder))
    assert "\n0 problems" in shown
    row = next(line for line in shown.splitlines() if line.startswith("mine.jsonl"))
    assert row.split()[1] == "4"


def test_rollouts_hold_all_images_and_a_reward_reads_the_further_field(run: Path) -> None:
    records = [record for file in sorted((run / "rollouts").glob("*.jsonl")) for record in lines(file)]
    assert len(records) == 2 * 2 * 2
    for record in records:
        level = int(record["sample_id"].split("/")[1]) - 1
        assert record["rewards"]["level"] == record["extra"]["difficulty"]["level"] == level
        (more,) = record["more_images"]
        for file, size in ((record["image"], record["image_size"]), (more["image"], more["image_size"])):
            with Image.open(file) as image:
                assert image.size == tuple(size)
        assert len(record["more_box_spaces"]) == 1
        assert (record["reference_images"], record["reference_labels"]) == ([1, 2], ["shape", None])
        assert record["options"] == ["yes", "no"]
        assert record["answer"] in ("yes", "no")


def test_held_out_answers_are_judged_and_drawn_side_by_side(run: Path) -> None:
    answers = lines(RunFolder(run).after_file)
    assert len(answers) == 4
    assert all(len(answer["more_images"]) == 1 for answer in answers)
    with Image.open(run / "plots" / "examples.png") as picture:
        assert picture.width > 500


def test_stored_rollouts_are_scored_again_with_the_same_result(cli, run: Path, folder: Path) -> None:
    succeeded(cli("--config-dir", "conf", "task=score", "run=run", "reward=mine", cwd=folder))
    (table,) = run.glob("scores/*/scores.jsonl")
    assert all(line["old"]["rewards"] == line["new"]["rewards"] for line in lines(table))


def test_evaluation_and_fine_tuning_take_them_too(cli, run: Path, folder: Path) -> None:
    shown = succeeded(cli("task=evaluate", "run=run", "data.val=mine.jsonl", "threads=1", cwd=folder))
    assert "accuracy" in shown
    tuned = ("task=sft", "data.train=mine.jsonl", "data.val=null", "out=tuned", "threads=1", "trainer.accelerator=cpu")
    succeeded(cli(*tuned, "trainer.max_steps=2", *SMALL[:1], SMALL[2], cwd=folder))
