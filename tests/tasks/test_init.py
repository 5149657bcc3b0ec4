"""Tests of the example data set and config that a user starts from."""

from __future__ import annotations

import json
from pathlib import Path

import yaml


def test_what_is_written_can_be_checked_and_trained_on_as_its_page_says(cli, tmp_path: Path) -> None:
    done = cli("task=init", "out=mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mine = tmp_path / "mine"
    names = sorted(str(path.relative_to(mine)) for path in mine.rglob("*") if path.is_file() and path.suffix != ".png")
    assert names == ["README.md", "conf/experiment/mine.yaml", "train.jsonl", "val.jsonl"]
    assert (mine / "README.md").read_text() in done.stdout
    commands = [line.split()[3:] for line in (mine / "README.md").read_text().splitlines() if line.startswith("    py")]
    check, train = commands[:2]
    checked = cli(*check, "threads=1", cwd=tmp_path)
    assert (checked.returncode, "0 problems" in checked.stdout) == (0, True), checked.stdout + checked.stderr
    short = ("trainer.max_steps=1", "rollout.max_new_tokens=4", "threads=1", "trainer.accelerator=cpu", "out=run")
    trained = cli(*train, *short, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "4 held-out questions" in trained.stdout
    shown = [
        json.loads(line) for line in (tmp_path / "run" / "rollouts" / "step_000001.jsonl").read_text().splitlines()
    ]
    assert {Path(one["image"]).parent for one in shown} == {mine / "images"}


def test_the_config_comments_every_value(cli, tmp_path: Path) -> None:
    cli("task=init", "out=mine", cwd=tmp_path)
    text = (tmp_path / "mine" / "conf" / "experiment" / "mine.yaml").read_text()
    assert set(yaml.safe_load(text)) == {"name", "data", "rollout", "optimizer", "trainer"}
    assert text.count("#") >= 8
    assert str(tmp_path / "mine") in text


def test_a_folder_must_be_given_and_be_free(cli, tmp_path: Path) -> None:
    bare = cli("task=init", cwd=tmp_path)
    assert (bare.returncode, "give their folder as out=DIR" in bare.stderr) == (1, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept.txt").write_text("kept")
    taken = cli("task=init", "out=mine", cwd=tmp_path)
    assert (taken.returncode, "is taken: choose another out=…" in taken.stderr) == (1, True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["kept.txt"]
