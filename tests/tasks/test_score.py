"""Tests of ``task=score``: a real run is scored again by its own rewards and by others."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from grit_lightning.app import main as app
from grit_lightning.errors import UserError
from grit_lightning.tasks.score import score_rollouts
from support.processes import start

FAST = ("+debug=fast", "threads=1", "trainer.accelerator=cpu", "rollout.num_generations=4", "rollout.max_new_tokens=40")
FILES = ["comparison.csv", "comparison.md", "config.yaml", "scores.jsonl"]


def assert_succeeded(done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def finished(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    assert_succeeded(cli(*FAST, "out=run", cwd=folder))
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run folder at another path, without checkpoints, because scoring needs no model."""
    return shutil.copytree(finished, tmp_path / "moved", ignore=shutil.ignore_patterns("*.ckpt"))


def changes(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "comparison.csv").open() as file:
        return {line["name"]: line for line in csv.DictReader(file)}


def scores(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]


def rollouts(run: Path) -> list[dict]:
    return [json.loads(line) for file in sorted(run.glob("rollouts/*")) for line in file.read_text().splitlines()]


def test_the_same_rewards_give_the_very_same_scores_without_torch(cli, run: Path, listing) -> None:
    before = listing(run)
    done = cli("task=score", "run=moved", cwd=run.parent, python=("-X", "importtime"))
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "scipy.optimize" in imported
    assert not imported & {"torch", "transformers", "lightning"}
    folder = run / "scores" / "again"
    assert done.stdout.endswith(f"\nwritten to {folder}\n")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    lines, stored = scores(folder), rollouts(run)
    assert len(lines) == 2 * 2 * 4
    for line, record in zip(lines, stored, strict=True):
        assert line["new"] == line["old"]
        assert line["old"] == {key: record[key] for key in ("rewards", "reward", "reward_errors")}
        for key in ("step", "slot", "sample_id", "completion_index"):
            assert line[key] == record[key]
    found = changes(folder)
    assert list(found) == [*stored[0]["rewards"], "total"]
    assert {name: float(one["agreement"]) for name, one in found.items()} == dict.fromkeys(found, 1.0)
    assert len({line["new"]["reward"] for line in lines}) > 1, "equal totals would agree by accident"
    assert "Of 16 advantages, 0 % changed sign, 0 % are no longer 0, 0 % became 0.\n" in done.stdout
    after = listing(run)
    assert {name: after[name] for name in before} == before, "nothing else of the run is touched"
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"scores"}


def test_a_user_reward_in_a_user_config_scores_a_run(cli, run: Path) -> None:
    (run.parent / "my_module.py").write_text(
        "def my_reward(sample, completion, *, per_token: float) -> float | None:\n"
        "    return per_token * len(completion.token_ids) if sample.dataset == 'tallyqa' else None\n"
    )
    (run.parent / "my_conf" / "reward").mkdir(parents=True)
    (run.parent / "my_conf" / "reward" / "mine.yaml").write_text(
        "defaults: [grit, _self_]\n"
        "components:\n"
        "  brevity: {weight: -2.0, fn: {_target_: my_module.my_reward, _partial_: true, per_token: 0.5}}\n"
    )
    options = ("task=score", "run=moved", "reward=mine", "~reward.components.repetition")
    done = cli("--config-dir", "my_conf", *options, cwd=run.parent)
    assert_succeeded(done)
    folder = run / "scores" / "mine"
    for line, record in zip(scores(folder), rollouts(run), strict=True):
        counting = record["dataset"] == "tallyqa"
        old, new = line["old"]["rewards"], line["new"]["rewards"]
        assert new == {name: value for name, value in old.items() if name != "repetition"} | {
            "brevity": record["num_tokens"] / 2 if counting else None
        }
        expected = line["old"]["reward"] - old["repetition"] - record["num_tokens"]
        assert line["new"]["reward"] == (pytest.approx(expected) if counting else None)
    found = changes(folder)
    counted = sum(record["dataset"] == "tallyqa" for record in rollouts(run))
    assert 0 < counted < 16
    assert (found["total"]["compared"], found["total"]["new_unscored"]) == (str(counted), str(16 - counted))
    assert (found["repetition"]["new_scored"], found["repetition"]["old_scored"]) == ("0", "16")
    assert re.search(r"^brevity +– +\d", done.stdout, re.M)
    page = (folder / "comparison.md").read_text()
    assert re.search(
        r"^- step \d, slot \d, .+: \*\*\d\.\d+ → -\d+.*\*\* \(brevity \d+(\.\d+)?, which is new\)$", page, re.M
    )
    used = OmegaConf.load(folder / "config.yaml")
    assert used.reward.components.brevity.fn._target_ == "my_module.my_reward"
    assert used.run == str(run)


def test_a_single_file_is_scored_inside_and_outside_a_run(cli, run: Path, tmp_path: Path) -> None:
    torn = run / "rollouts" / "step_000002.jsonl"
    torn.write_bytes(torn.read_bytes()[:-30])
    for repeat in ("digits", "digits_v2"):
        done = cli("task=score", f"run={torn}", "reward=digits", cwd=tmp_path)
        assert_succeeded(done)
        assert f"\nLeft out: {torn}:8: not valid JSON (" in done.stdout
        lines = scores(run / "scores" / repeat)
        assert [list(line["new"]["rewards"]) for line in lines] == [["digit_share"]] * 7
    alone = shutil.copy(run / "rollouts" / "step_000001.jsonl", tmp_path / "alone.jsonl")
    before = sorted(tmp_path.iterdir())
    done = cli("task=score", f"run={alone}", "out=compared", cwd=tmp_path)
    assert_succeeded(done)
    assert sorted(path.name for path in (tmp_path / "compared").iterdir()) == FILES
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "compared"])
    assert all(line["new"] == line["old"] for line in scores(tmp_path / "compared"))


def test_predictions_of_an_evaluation_are_scored_without_comparison(cli, run: Path) -> None:
    predictions = run / "eval" / "after.jsonl"
    done = cli("task=score", f"run={predictions}", "name=held_out", cwd=run.parent)
    assert_succeeded(done)
    lines = scores(run / "scores" / "held_out")
    assert len(lines) == len(predictions.read_text().splitlines()) > 0
    for line, record in zip(lines, map(json.loads, predictions.read_text().splitlines()), strict=True):
        assert (line["old"], line["step"], line["sample_id"]) == (None, None, record["sample_id"])
        assert line["new"]["rewards"]["answer_match"] is not None
    assert "No group has two completions that both scorings scored, so there is no ranking to compare." in done.stdout


def test_ctrl_c_leaves_nothing_and_scoring_can_be_repeated(cli, run: Path, listing) -> None:
    (run.parent / "slow.py").write_text(
        "import pathlib, time\n\n"
        "def reward(sample, completion, *, seconds: float) -> float:\n"
        "    pathlib.Path('begun').touch()\n"
        "    time.sleep(seconds)\n"
        "    return 1.0\n"
    )
    component = "+reward.components.slow={weight: 1, fn: {_target_: slow.reward, _partial_: true, seconds: %s}}"
    before = listing(run)
    command = ["task=score", "run=moved", component % 1]
    process = start(*command, cwd=run.parent, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run.parent / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "stopped: nothing was written; run the same command to start again\n")
    assert listing(run) == before
    (run / "scores").mkdir()  # what a kill in the middle of writing leaves
    (run / "scores" / ".again.tmp").mkdir()
    (run / "scores" / ".again.tmp" / "scores.jsonl").write_text("{")
    assert_succeeded(cli("task=score", "run=moved", component % 0, cwd=run.parent))
    assert [path.name for path in (run / "scores").iterdir()] == ["again"]
    assert all(line["new"]["rewards"]["slow"] == 1.0 for line in scores(run / "scores" / "again"))


# ---- what cannot be scored ----


def untouched(run: Path) -> None:
    pass


def without_rollouts(run: Path) -> None:
    shutil.rmtree(run / "rollouts")


def without_a_field(run: Path) -> None:
    file = run / "rollouts" / "step_000001.jsonl"
    file.write_text(file.read_text().replace('"token_ids"', '"tokens"'))


def nothing_but_a_torn_line(run: Path) -> None:
    (run / "rollouts" / "step_000002.jsonl").unlink()
    (run / "rollouts" / "step_000001.jsonl").write_text('{"step": 1,')


def with_a_reward_that_is_gone(run: Path) -> None:
    file = run / "composed.yaml"
    file.write_text(file.read_text().replace("grit_lightning.rewards.box_valid", "my_module.box_valid"))


@pytest.mark.parametrize(
    ("spoil", "overrides", "message"),
    [
        (untouched, (), r"^run is null, expected a run folder or a JSONL file of rollouts: run=RUN$"),
        (untouched, ("run=nowhere",), r"^\S+/nowhere: does not exist; expected a run folder or a JSONL file of "),
        (untouched, ("run=moved/eval",), r"^\S+/moved/eval is not a run folder: it has no manifest\.json\.$"),
        (without_rollouts, ("run=moved",), r"^\S+/moved/rollouts: no rollouts here\.$"),
        (nothing_but_a_torn_line, ("run=moved",), r"^\S+/moved: no rollouts here\.$"),
        (
            without_a_field,
            ("run=moved",),
            r"^\S+1\.jsonl:1: field 'token_ids' is missing; expected a list of token",
        ),
        (lambda run: (run / "composed.yaml").unlink(), ("run=moved",), r"^\S+/moved: its composed\.yaml is missi"),
        (
            with_a_reward_that_is_gone,
            ("run=moved",),
            r"_target_ is 'my_module\.box_valid', which cannot be import",
        ),
        (
            untouched,
            ("run=moved", "task.most_changed=-1"),
            r"^task\.most_changed is -1, expected a whole number of at least 0",
        ),
        (untouched, ("run=moved", "task.excerpt=x"), r"^task\.excerpt is 'x', expected int$"),
    ],
)
def test_an_input_that_cannot_be_scored_is_refused_and_unchanged(
    compose_config, run: Path, listing, monkeypatch, spoil, overrides, message
) -> None:
    monkeypatch.chdir(run.parent)
    spoil(run)
    before = listing(run.parent)
    cfg = compose_config("task=score", *overrides)
    with pytest.raises((UserError, HydraException)) as error:
        score_rollouts(cfg, **{key: value for key, value in cfg.task.items() if key[0] != "_"})
    line = app.one_line(error.value)
    assert re.search(message, line), line
    assert listing(run.parent) == before


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("out=moved", r"error: out=\S+/moved is taken: choose another out=…\n"),
        ("out=moved/manifest.json/x", r"error: out=\S+/x cannot be made: \S+/manifest\.json is in the way\n"),
        ("name=a/b", r"error: name is 'a/b', expected a name for a folder, such as baseline\n"),
        ("+experiment=tiny", r"error: \+experiment=tiny cannot be given with a run: the run has its own config\n"),
    ],
)
def test_an_unusable_output_folder_is_refused(cli, run: Path, listing, option: str, line: str) -> None:
    before = listing(run.parent)
    done = cli("task=score", "run=moved", option, cwd=run.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(line, done.stderr), done.stderr
    assert listing(run.parent) == before


def test_a_read_only_run_needs_another_output_folder(compose_config, run: Path, listing, monkeypatch) -> None:
    # Not by its mode: nothing would be read-only to root.
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (run, os.W_OK))
    before = listing(run.parent)
    cfg = compose_config("task=score", f"run={run}")
    with pytest.raises(UserError) as error:
        score_rollouts(cfg, most_changed=0, excerpt=1)
    message = f"{run}/scores/again cannot be written: {run} is read-only; give another folder as out=…"
    assert str(error.value) == message
    assert listing(run.parent) == before
