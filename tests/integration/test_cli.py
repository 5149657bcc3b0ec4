"""Tests of ``python -m grit_lightning`` in a user's folder: output, files and exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from omegaconf import OmegaConf

from support.photographs import VSR10, needs_photographs

FAST = ("threads=1", "+debug=fast", "trainer.accelerator=cpu")
COUNTING = "shapes_tallyqa_train_10.jsonl"


def rollouts(run: Path) -> list[dict]:
    return [json.loads(line) for file in sorted(run.glob("rollouts/*.jsonl")) for line in file.read_text().splitlines()]


def assert_succeeded(done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_groups_and_commands_without_loading_torch(cli, tmp_path: Path) -> None:
    done = cli("--help", cwd=tmp_path, python=("-X", "importtime"))
    assert done.returncode == 0
    assert "\ndata: grit, grit20, grit_eval, shapes20, shapes_lessons\n" in done.stdout
    assert (
        "\nexperiment: internvl2b, paper, qwen3b, qwen3b_lora, qwen3vl_4b, qwen7b_lora, tiny, tiny_pretrain\n"
        in done.stdout
    )
    assert "python -m grit_lightning +experiment=qwen3b " in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "transformers", "lightning"}
    assert list(tmp_path.iterdir()) == []


def test_cfg_job_prints_the_resolved_config_as_yaml(cli, tmp_path: Path) -> None:
    done = cli("--cfg", "job", "--resolve", "+debug=fast", cwd=tmp_path)
    assert_succeeded(done)
    cfg = OmegaConf.create(done.stdout)
    assert (cfg.name, cfg.trainer.max_steps, cfg.scheduler.num_training_steps) == ("debug", 2, 2)
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_debug", cfg.out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.root=mine"], rf"error: \S+/{COUNTING}:3: image \S+\.png does not exist"),
        (["data.colour=red"], r"error: data\.colour is unknown: .+"),
        (["out=a_file/run"], r"error: out=\S+/a_file/run cannot be the run folder: .+"),
        (["resume=mine"], r"error: mine is not a run folder: it has no manifest\.json\."),
        (["--config-dir", "nowhere"], r"error: Additional config directory '\S*nowhere' not found"),
        (["optimizer._target_=mine.Adam"], r"error: optimizer\._target_ is 'mine\.Adam', which cannot be imported: .+"),
    ],
)
def test_a_user_error_is_one_line_and_writes_nothing(cli, listing, shapes: Path, arguments: list[str], message: str):
    record = json.loads((shapes / COUNTING).read_text().splitlines()[2])
    (shapes / "images" / record["image"]).unlink()
    (shapes.parent / "a_file").write_text("kept")
    before = listing(shapes.parent)
    done = cli(*arguments, cwd=shapes.parent)
    assert done.returncode == 1
    assert re.fullmatch(message + "\n", done.stderr), done.stderr
    assert done.stdout == ""
    assert listing(shapes.parent) == before


def test_validate_sums_up_a_good_data_set(cli, tmp_path: Path) -> None:
    done = cli("task=validate", cwd=tmp_path)
    assert_succeeded(done)
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if ".jsonl" in line}
    assert rows == {
        COUNTING: "10",
        "shapes_vsr_train_10.jsonl": "10",
        "shapes_tallyqa_heldout_256.jsonl": "256",
        "shapes_vsr_heldout_256.jsonl": "256",
    }
    assert done.stdout.endswith("\n0 problems\n")
    assert list(tmp_path.iterdir()) == []


def test_validate_names_every_problem(cli, listing, shapes: Path) -> None:
    lines = [json.loads(line) for line in (shapes / COUNTING).read_text().splitlines()]
    lines[1]["answer"] = []
    lines[4]["bboxs"] = [[5, 5, 1, 1]]
    (shapes / COUNTING).write_text("\n".join(map(json.dumps, lines)))
    (shapes / "images" / lines[7]["image"]).write_bytes(b"no picture")
    before = listing(shapes.parent)
    done = cli("task=validate", "data.root=mine", "data.val=null", cwd=shapes.parent)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    problems = [line for line in done.stdout.splitlines() if re.match(rf"\S+/{COUNTING}:\d+: ", line)]
    assert [line.partition(f"{COUNTING}:")[2][0] for line in problems] == ["2", "5", "8"]
    assert "field 'answer' is a list" in problems[0]
    assert "field 'bboxs[0]' is [5, 5, 1, 1]; expected x1 < x2 and y1 < y2" in problems[1]
    assert "cannot be decoded" in problems[2]
    assert done.stdout.endswith("\n3 problems\n")
    assert listing(shapes.parent) == before


def test_a_user_reward_in_a_user_config_is_trained_on(cli, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_rewards.py").write_text(
        "def brevity(sample, completion, *, per_token: float) -> float:\n"
        "    return -per_token * len(completion.token_ids)\n"
    )
    (tmp_path / "my_conf" / "reward").mkdir(parents=True)
    (tmp_path / "my_conf" / "reward" / "mine.yaml").write_text(
        "defaults: [grit, _self_]\n"
        "components:\n"
        "  brevity: {weight: 2.0, fn: {_target_: my_rewards.brevity, _partial_: true, per_token: 0.5}}\n"
    )
    done = cli(
        *("--config-dir", "my_conf", *FAST, "reward=mine", "trainer.max_steps=1", "out=here"),
        cwd=tmp_path,
        PYTHONPATH=str(tmp_path / "code"),
    )
    assert_succeeded(done)
    written = rollouts(tmp_path / "here")
    assert len(written) == 2 * 2
    for record in written:
        rewards = record["rewards"]
        assert rewards["brevity"] == -0.5 * record["num_tokens"]
        others = ("answer_match", "answer_bleu", "answer_format", "think_rethink", "grounded_region", "repetition")
        assert record["reward"] == pytest.approx(sum(rewards[name] for name in others) + 2 * rewards["brevity"])


def test_a_sweep_gives_each_job_a_run_folder(cli, tmp_path: Path) -> None:
    done = cli("-m", "seed=0,1", *FAST, "trainer.max_steps=1", "out=sweep", cwd=tmp_path)
    assert_succeeded(done)
    runs = sorted(path.parent for path in tmp_path.rglob("manifest.json"))
    assert [run.parent for run in runs] == [tmp_path / "sweep"] * 2
    assert [json.loads((run / "manifest.json").read_text())["seed"] for run in runs] == [0, 1]
    assert [OmegaConf.load(run / "config.yaml").out for run in runs] == [str(run) for run in runs]
    texts = [[record["text"] for record in rollouts(run)] for run in runs]
    assert texts[0] != texts[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "sweep"]


def test_a_sweep_names_the_job_that_fails(cli, tmp_path: Path) -> None:
    done = cli("-m", "rollout.num_generations=1", *FAST, "out=sweep", cwd=tmp_path)
    assert done.returncode == 1
    assert "): rollout.num_generations is 1, expected at least 2: " in done.stderr.splitlines()[-1]
    assert "rollout.num_generations=1" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr


@needs_photographs
def test_three_steps_on_the_ten_vsr_photographs_show_each_of_them(cli, tmp_path: Path) -> None:
    options = ("data=grit", f"data.root={VSR10}", "trainer.max_steps=3", "rollout.num_generations=2", "out=run")
    done = cli(*options, "rollout.max_new_tokens=16", "threads=1", "trainer.accelerator=cpu", cwd=tmp_path)
    assert_succeeded(done)
    assert f"data.train: skipped because missing: {VSR10}/tallyqa_train_10.jsonl" in done.stderr
    shown = {record["image"] for record in rollouts(tmp_path / "run")}
    assert shown == {str(path) for path in (VSR10 / "images").glob("*.jpg")}
    assert len(shown) == 10
