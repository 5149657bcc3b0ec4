"""Tests of the files that a run writes, and of its continuation."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

COMPONENTS = (
    *("answer_match", "answer_bleu", "answer_format", "think_rethink", "grounded_region", "repetition"),
    *("answer_score", "box_valid", "box_iou"),
)
FIELDS = {
    *("step", "slot", "completion_index", "sample_id", "dataset", "split", "source", "question", "answer", "image"),
    *("more_images", "options", "extra", "reference_images", "reference_labels", "more_box_spaces"),
    *("image_size", "reference_boxes", "reference_completion", "prompt_sha256", "text", "finish", "num_tokens"),
    *("token_ids", "parsed_answer", "box_space", "boxes", "rewards", "reward", "reward_errors", "advantage"),
}


@pytest.fixture(scope="module")
def finished(cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """The folder and the process of a run of two steps, started from the command line."""
    folder = tmp_path_factory.mktemp("work")
    done = cli("+debug=fast", "threads=1", "trainer.accelerator=cpu", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    assert [path.name for path in folder.iterdir()] == ["runs"]
    return run, done


@pytest.fixture
def run(finished: tuple[Path, CompletedProcess[str]], tmp_path: Path) -> Path:
    """A copy of the run folder at another path."""
    return shutil.copytree(finished[0], tmp_path / "run")


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_folder_name_holds_time_and_run_name(finished) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_debug", finished[0].name)


def test_the_console_shows_each_step_and_the_output_folders(finished) -> None:
    run, done = finished
    steps = r"(step [12]/2  reward \S+  KL \S+  length \S+  tokens/s .+\n){2}"
    assert re.fullmatch(r"INFO: [\d,]+ of [\d,]+ parameters are trained\n" + steps, done.stderr)
    assert f"run folder   {run}\n" in done.stdout
    assert f"tensorboard --logdir {run}/tensorboard\n" in done.stdout


def test_the_folder_holds_config_and_manifest(run: Path, finished) -> None:
    resolved, composed = OmegaConf.load(run / "config.yaml"), OmegaConf.load(run / "composed.yaml")
    assert resolved.scheduler.num_training_steps == 2
    assert OmegaConf.to_container(composed, resolve=False)["scheduler"]["num_training_steps"] == "${trainer.max_steps}"
    assert resolved.out == composed.out == str(finished[0])
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["overrides"] == ["+debug=fast", "threads=1", "trainer.accelerator=cpu"]
    assert len(manifest["data_sha256"]) == 4
    assert (run / "run.log").is_file()


def test_the_folder_holds_every_rollout(run: Path) -> None:
    assert sorted(path.name for path in (run / "rollouts").iterdir()) == ["step_000001.jsonl", "step_000002.jsonl"]
    for step in (1, 2):
        lines = (run / "rollouts" / f"step_00000{step}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        assert [(record["slot"], record["completion_index"]) for record in records] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        for record in records:
            assert set(record) == FIELDS
            assert record["step"] == step
            assert set(record["rewards"]) == set(COMPONENTS)
            assert 1 <= record["num_tokens"] == len(record["token_ids"]) <= 16


def test_the_checkpoint_holds_the_policy_alone(run: Path) -> None:
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"policy"}


def test_tensorboard_holds_every_curve(run: Path) -> None:
    found = curves(run)
    expected = {f"reward/{name}/{what}" for name in (*COMPONENTS, "total") for what in ("mean", "std")}
    expected |= {
        "reward/zero_variance",
        "reward/unscored",
        "rollout/truncated",
        "rollout/length/mean",
        "rollout/length/std",
    }
    expected |= {f"policy/{name}" for name in ("kl", "entropy", "clip_fraction", "loss", "grad_norm", "learning_rate")}
    expected |= {"time/tokens_per_second", "system/peak_memory_gib"}
    expected |= {f"time/{phase}" for phase in ("rollout", "reward", "reference", "update", "step")}
    assert expected <= set(found)
    assert {tuple(step for step, _ in found[tag]) for tag in expected} == {(1, 2)}


def test_the_curves_are_means_over_the_rollouts(run: Path) -> None:
    found = curves(run)
    for step in (1, 2):
        lines = (run / "rollouts" / f"step_00000{step}.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        by_tag = {
            "reward/total/mean": [record["reward"] for record in records],
            "reward/repetition/mean": [record["rewards"]["repetition"] for record in records],
            "rollout/length/mean": [record["num_tokens"] for record in records],
            "rollout/truncated": [record["finish"] == "length" for record in records],
            "reward/unscored": [record["reward"] is None for record in records],
        }
        for tag, values in by_tag.items():
            assert dict(found[tag])[step] == pytest.approx(sum(values) / len(values)), tag


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer.lr=0.5", "error: optimizer.lr=0.5 cannot be changed in a resume: it is part of the checkpoint"),
        ("out=elsewhere", "error: out=elsewhere cannot be changed in a resume: it is part of the checkpoint or names"),
        ("module.logits_chunk=0", "error: module.logits_chunk is 0, expected a whole number of at least 1"),
        ("objective=dapo", "error: objective=dapo cannot be applied to a run that exists, expected KEY=VALUE"),
    ],
)
def test_a_refused_resume_changes_nothing(cli, run: Path, listing, override: str, line: str) -> None:
    before = listing(run.parent)
    done = cli("resume=run", "trainer.max_steps=3", override, cwd=run.parent)
    assert (done.returncode, listing(run.parent)) == (1, before)
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_a_finished_run_is_not_resumed(cli, run: Path, listing) -> None:
    before = listing(run)
    done = cli("resume=run", cwd=run.parent)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: run: all 2 steps are done; to go on, give a larger trainer.max_steps, such as 4\n"
    assert listing(run) == before


def test_an_extended_run_goes_on_where_it_stopped(cli, run: Path, listing) -> None:
    before = listing(run)
    done = cli("resume=run", "trainer.max_steps=3", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"INFO: continuing run after step 2\nINFO: [\d,]+ of [\d,]+ parameters are trained\nstep 3/3  .+\n", done.stderr
    )
    after = listing(run)
    changed = {name for name in before if after[name] != before[name]}
    shown = {"eval/after.jsonl", "eval/metrics.json", "plots/examples.png", "plots/rewards.png"}
    assert changed <= {
        "checkpoints/last.ckpt",
        "results.json",
        "inputs.json",
        "report.html",
        "run.log",
        "tensorboard/hparams.yaml",
        *shown,
    }
    assert "eval/before.jsonl" in before
    assert set(json.loads((run / "eval" / "metrics.json").read_text())) == {"before", "after"}
    assert "plots/rewards.png" in changed  # a step longer
    assert (run / "rollouts" / "step_000003.jsonl").is_file()
    assert [step for step, _ in curves(run)["reward/total/mean"]] == [1, 2, 3]
    (resume,) = [json.loads(line) for line in (run / "resumes.jsonl").read_text().splitlines()]
    assert (resume["step"], resume["overrides"]) == (2, ["trainer.max_steps=3"])
