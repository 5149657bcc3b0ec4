"""``task=evaluate`` and the demonstration, from the command line: what is written, and what a run is left as."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf

from grit_lightning import app
from grit_lightning.errors import UserError
from grit_lightning.evaluation import read_predictions, summary
from grit_lightning.tasks.evaluate import evaluate

FAST = ("+debug=fast", "threads=1", "trainer.accelerator=cpu", "data.heldout.count=2", "reward=digits")
FILES = ["config.yaml", "metrics.json", "predictions.jsonl"]


def assert_succeeded(done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def finished(cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """A run whose steps are so large that the model answers otherwise after them."""
    folder = tmp_path_factory.mktemp("work")
    done = cli(*FAST, "optimizer.lr=0.05", "out=run", cwd=folder)
    assert_succeeded(done)
    return folder / "run", done


@pytest.fixture
def run(finished, tmp_path: Path) -> Path:
    """The run folder, moved."""
    return shutil.copytree(finished[0], tmp_path / "moved")


def test_a_training_ends_with_a_demonstration(finished) -> None:
    run, done = finished
    assert re.search(r"^4 held-out questions, answered greedily\.\n\n +before +after\naccuracy ", done.stdout, re.M)
    assert done.stdout.index("before") < done.stdout.index("Training ended at step 2.")
    assert f"evaluation   {run}/eval\nplots        {run}/plots\n" in done.stdout
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["examples.png", "rewards.png"]
    tokens = [[one["token_ids"] for one in read_predictions(run / "eval" / f"{w}.jsonl")] for w in ("before", "after")]
    assert tokens[0] != tokens[1]


def test_a_training_is_the_same_without_its_demonstration(cli, finished, tmp_path: Path) -> None:
    done = cli(*FAST, "optimizer.lr=0.05", "out=run", "~callbacks.demonstration", cwd=tmp_path)
    assert_succeeded(done)
    assert not (tmp_path / "run" / "eval").exists()
    for file in ("rollouts/step_000001.jsonl", "rollouts/step_000002.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (finished[0] / file).read_bytes()
    ours, theirs = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (tmp_path / "run", finished[0])
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_runs_checkpoint_answers_as_the_run_did_at_its_end(cli, run: Path, listing) -> None:
    before = listing(run)
    done = cli("task=evaluate", "ckpt=moved", "threads=1", cwd=run.parent)
    assert_succeeded(done)
    folder = run / "eval" / "step_000002"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    predictions = read_predictions(folder / "predictions.jsonl")
    expected = read_predictions(run / "eval" / "after.jsonl")
    moving = ("image", "source")  # held-out pictures are drawn anew, in a folder of their own
    assert [{k: v for k, v in one.items() if k not in moving} for one in predictions] == [
        {k: v for k, v in one.items() if k not in moving} for one in expected
    ]
    about = json.loads((folder / "metrics.json").read_text())
    assert about["metrics"] == summary(predictions)
    assert about["step"] == 2
    assert re.search(r"^accuracy +0\.\d+ +\d\.\d+ +\d\.\d+$", done.stdout, re.M)
    assert done.stdout.endswith(f"written to {folder}\n")
    after = listing(run)
    assert {name: after[name] for name in before} == before, "nothing of the run itself is touched"


def test_another_prompt_and_other_values_for_a_runs_checkpoint(cli, run: Path) -> None:
    options = ("prompt=plain", "rollout.max_new_tokens=5", "data.heldout.count=1", "evaluation.batch_size=1")
    for name in ("short", "short_v2"):
        done = cli("task=evaluate", "ckpt=moved", "threads=1", "name=short", *options, cwd=run.parent)
        assert_succeeded(done)
        predictions = read_predictions(run / "eval" / name / "predictions.jsonl")
        assert [one["num_tokens"] <= 5 for one in predictions] == [True, True]
    after = {one["sample_id"].rpartition("/")[2]: one for one in read_predictions(run / "eval" / "after.jsonl")}
    assert not {one["prompt_sha256"] for one in predictions} & {one["prompt_sha256"] for one in after.values()}
    about = json.loads((run / "eval" / "short" / "metrics.json").read_text())
    assert about["prompt"] == "{question}"
    cfg = OmegaConf.load(run / "eval" / "short" / "config.yaml")
    assert (cfg.optimizer.lr, cfg.model.prompt) == (0.05, "{question}"), "all else is the run's"


def test_the_configs_own_model(cli, tmp_path: Path) -> None:
    options = ("threads=1", "trainer.accelerator=cpu", "rollout.max_new_tokens=4", "data.heldout.count=30")
    done = cli("task=evaluate", "prompt=grounded_prefilled", *options, cwd=tmp_path)
    assert_succeeded(done)
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == FILES
    predictions = read_predictions(folder / "predictions.jsonl")
    assert len(predictions) == 60
    assert all(one["text"].startswith("<think>") and one["num_tokens"] <= 4 for one in predictions)
    assert re.fullmatch(r"(answering: \d+/60 samples\n)+", done.stderr)
    again = cli("task=evaluate", f"out={folder}", *options, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == f"error: out={folder} is taken: choose another out=…\n"


# ---- what cannot be evaluated ----


def of_something_else(folder: Path) -> None:
    torch.save({"state_dict": {"layer.weight": torch.zeros(1)}, "global_step": 3}, folder / "checkpoints" / "last.ckpt")


def of_another_shape(folder: Path) -> None:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    state = checkpoint["state_dict"]
    name = "policy.model.model.language_model.norm.weight"
    state[name] = torch.zeros(len(state[name]) + 1)
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")


def of_fewer_weights(folder: Path) -> None:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    del checkpoint["state_dict"]["policy.model.model.language_model.norm.weight"]
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")


def untouched(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "overrides", "message"),
    [
        (untouched, ("ckpt=nowhere",), r"^\S+/nowhere is not a folder\.$"),
        (untouched, ("ckpt=moved/eval",), r"^\S+/moved/eval is not a run folder: it has no manifest\.json\.$"),
        (
            lambda folder: shutil.rmtree(folder / "checkpoints"),
            ("ckpt=moved",),
            r"^\S+: this run has no checkpoint yet",
        ),
        (of_something_else, ("ckpt=moved",), r"^\S+/last\.ckpt: holds no weights of a policy, expected a checkpoint "),
        (of_fewer_weights, ("ckpt=moved",), r"^the checkpoint does not fit the model: 1 names differ, as model\.lang"),
        (of_another_shape, ("ckpt=moved",), r"^\S+/last\.ckpt: does not fit the model: size mismatch for model\.lang"),
        (untouched, ("data.heldout=null",), r"^there is nothing to evaluate on: data\.val and data\.heldout are both "),
        (untouched, ("out=moved",), r"^out=\S+/moved is taken: choose another out=…$"),
        (untouched, ("out=moved/manifest.json/x",), r"^out=\S+/x cannot be made: \S+/manifest\.json is in the way$"),
        (
            untouched,
            ("evaluation.batch_size=0",),
            r"^evaluation\.batch_size is 0, expected a whole number of at least ",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_left_alone(
    compose_config, run: Path, listing, monkeypatch, spoil, overrides, message
) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning leaves it behind
    spoil(run)
    before = listing(run.parent)
    with pytest.raises((UserError, HydraException)) as error:
        evaluate(compose_config("task=evaluate", "trainer.accelerator=cpu", *overrides))
    line = app.one_line(error.value)
    assert re.search(message, line), line
    assert listing(run.parent) == before


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+experiment=tiny", "error: +experiment=tiny cannot be given with a run: it has a config of its own\n"),
        ("~callbacks", "error: ~callbacks cannot be given with a run: it has a config of its own\n"),
    ],
)
def test_a_recipe_for_a_run_that_has_its_own_is_refused(cli, run: Path, override: str, line: str) -> None:
    done = cli("task=evaluate", "ckpt=moved", override, cwd=run.parent)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
