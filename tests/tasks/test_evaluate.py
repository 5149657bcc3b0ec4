"""Tests of ``task=evaluate`` and of evaluations in training, from the command line: files, output and refusals."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from filelock import FileLock
from hydra.errors import HydraException
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from grit_lightning.app import main as app
from grit_lightning.errors import UserError
from grit_lightning.evaluation.metrics import summary
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.evaluation.predictions import read_predictions as read_with_problems
from grit_lightning.tasks.evaluate import evaluate_model
from support.processes import start

FAST = ("+debug=fast", "threads=1", "trainer.accelerator=cpu", "data.val=[{shapes: 2}]", "reward=digits")
FILES = ["config.yaml", "evaluation.json", "metrics.json", "predictions.jsonl"]


def read_predictions(path: Path) -> list[Prediction]:
    ones, problems = read_with_problems(path)
    assert problems == []
    return ones


def assert_succeeded(done: CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def finished(cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CompletedProcess[str]]:
    """A run with a learning rate so large that the model's answers change."""
    folder = tmp_path_factory.mktemp("work")
    done = cli(*FAST, "optimizer.lr=0.05", "out=run", "evaluation.during_training.every_n_steps=1", cwd=folder)
    assert_succeeded(done)
    return folder / "run", done


@pytest.fixture
def run(finished, tmp_path: Path) -> Path:
    """A copy of the run folder at another path."""
    return shutil.copytree(finished[0], tmp_path / "moved")


def test_a_training_ends_with_a_demonstration(finished) -> None:
    run, done = finished
    assert re.search(
        r"^4 held-out questions, answered greedily\.\n\n +before +after +after - before\naccuracy ", done.stdout, re.M
    )
    assert done.stdout.index("before") < done.stdout.index("Training ended at step 2.")
    assert f"evaluation   {run}/eval\nplots        {run}/plots\n" in done.stdout
    assert sorted(path.name for path in (run / "plots").iterdir()) == ["examples.png", "rewards.png"]
    tokens = [[one["token_ids"] for one in read_predictions(run / "eval" / f"{w}.jsonl")] for w in ("before", "after")]
    assert tokens[0] != tokens[1]


def test_a_training_answers_held_out_questions_every_n_steps(finished) -> None:
    run, done = finished
    files = [run / "eval" / "training" / f"step_00000{step}.jsonl" for step in (1, 2)]
    assert read_predictions(files[1]) == read_predictions(run / "eval" / "after.jsonl")
    said = re.findall(r"^held-out overall/accuracy after step (\d): (\S+) on \d questions, (.+)$", done.stdout, re.M)
    accuracies = [summary(read_predictions(file))["overall"]["accuracy"] for file in files]
    assert [(step, value) for step, value, _ in said] == [("1", f"{accuracies[0]:.3f}"), ("2", f"{accuracies[1]:.3f}")]
    best = 2 if accuracies[1] > accuracies[0] else 1
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == best
    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in curves.Scalars("heldout/overall/accuracy")]
    assert found == [(1, pytest.approx(accuracies[0])), (2, pytest.approx(accuracies[1]))]


def test_a_training_is_the_same_without_its_evaluations(cli, finished, tmp_path: Path) -> None:
    without = ("~callbacks.demonstration", "~callbacks.heldout")
    done = cli(*FAST, "optimizer.lr=0.05", "out=run", *without, cwd=tmp_path)
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
    done = cli("task=evaluate", "run=moved", "threads=1", cwd=run.parent)
    assert_succeeded(done)
    folder = run / "eval" / "step_000002"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    predictions = read_predictions(folder / "predictions.jsonl")
    assert predictions == read_predictions(run / "eval" / "after.jsonl")
    about = json.loads((folder / "metrics.json").read_text())
    assert about["metrics"] == summary(predictions)
    assert about["intervals"].keys() == about["metrics"].keys()
    settings = json.loads((folder / "evaluation.json").read_text())
    assert (settings["weights"]["step"], settings["judge"]) == (2, "exact match")
    assert {settings["prompt"]["version"]} == {one["prompt_version"] for one in predictions}
    assert re.search(r"^accuracy +0\.\d+ +\d\.\d+ to \d\.\d+ +\d\.\d+ +\d\.\d+ +\d\.\d+$", done.stdout, re.M)
    assert done.stdout.endswith(f"written to {folder}\n")
    after = listing(run)
    assert {name: after[name] for name in before} == before, "nothing of the run itself is touched"


def test_a_runs_checkpoint_is_evaluated_with_another_prompt_and_limits(cli, run: Path) -> None:
    options = ("prompt=plain", "rollout.max_new_tokens=5", "data.val=[{shapes: 1}]", "evaluation.batch_size=1")
    for name, limit, more in (("short", 5, ()), ("short_v2", 4, ("rollout.max_new_tokens=4",))):
        done = cli("task=evaluate", "run=moved", "threads=1", "name=short", *options, *more, cwd=run.parent)
        assert_succeeded(done)
        predictions = read_predictions(run / "eval" / name / "predictions.jsonl")
        assert [one["num_tokens"] <= limit for one in predictions] == [True, True]
        settings = json.loads((run / "eval" / name / "evaluation.json").read_text())
        assert settings["decoding"]["max_new_tokens"] == limit
    after = {one["sample_id"].rpartition("/")[2]: one for one in read_predictions(run / "eval" / "after.jsonl")}
    assert not {one["prompt_sha256"] for one in predictions} & {one["prompt_sha256"] for one in after.values()}
    settings = json.loads((run / "eval" / "short" / "evaluation.json").read_text())
    assert settings["prompt"]["template"] == "{question}"
    cfg = OmegaConf.load(run / "eval" / "short" / "config.yaml")
    assert (cfg.optimizer.lr, cfg.model.prompt) == (0.05, "{question}"), "all else is the run's"


def test_without_a_run_the_configured_model_is_evaluated(cli, tmp_path: Path) -> None:
    options = ("threads=1", "trainer.accelerator=cpu", "rollout.max_new_tokens=4", "data.val=[{shapes: 30}]")
    done = cli("task=evaluate", "prompt=grounded_prefilled", *options, cwd=tmp_path)
    assert_succeeded(done)
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == FILES
    predictions = read_predictions(folder / "predictions.jsonl")
    assert len(predictions) == 60
    assert all(one["text"].startswith("<think>") and one["num_tokens"] <= 4 for one in predictions)
    assert re.fullmatch(r"(INFO: answering: \d+ of 60 samples …( \d+ s)?\n)*", done.stderr)


def test_the_folder_is_named_after_step_prompt_and_decoding(cli, run: Path) -> None:
    options = ("threads=1", "data.val=[{shapes: 1}]", "prompt=plain", "evaluation=sampled", "rollout.max_new_tokens=4")
    assert_succeeded(cli("task=evaluate", "run=moved/checkpoints/last.ckpt", *options, cwd=run.parent))
    predictions = read_predictions(run / "eval" / "step_000002_plain_sampled" / "predictions.jsonl")
    assert [one["completion_index"] for one in predictions] == [*range(8)] * 2
    metrics = json.loads((run / "eval" / "step_000002_plain_sampled" / "metrics.json").read_text())["metrics"]
    assert {"pass_at_k", "majority_vote", "answer_entropy"} < metrics["overall"].keys()


TINY = ("task=evaluate", "threads=1", "trainer.accelerator=cpu", "rollout.max_new_tokens=6", "data.val=[{shapes: 30}]")


@pytest.fixture(scope="module")
def undisturbed(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted evaluation of sixty samples of several sizes."""
    folder = tmp_path_factory.mktemp("evaluated")
    assert_succeeded(cli(*TINY, "out=alone", cwd=folder))
    return folder / "alone"


def test_a_finished_evaluation_is_not_repeated(cli, undisturbed: Path, listing) -> None:
    before = listing(undisturbed)
    done = cli(*TINY, "out=alone", "evaluation.batch_size=5", cwd=undisturbed.parent)
    assert_succeeded(done)
    assert "60 samples, answered greedily, judged by exact match, all answered before\n" in done.stdout
    assert listing(undisturbed) == before


def test_another_evaluation_in_its_folder_is_refused(cli, undisturbed: Path, listing) -> None:
    before = listing(undisturbed)
    for change, name in (
        ("prompt=plain", "prompt.template"),
        ("rollout.max_new_tokens=7", "decoding.max_new_tokens"),
        ("data.val=[{shapes: 30, seed: 9}]", "data.sha256"),
        ("task.max_samples=7", "data.samples"),
    ):
        done = cli(*TINY, "out=alone", change, cwd=undisturbed.parent)
        assert (done.returncode, done.stderr) == (
            1,
            f"error: out={undisturbed} holds an evaluation whose {name} differs: choose another out=…\n",
        )
    assert listing(undisturbed) == before


@pytest.mark.parametrize(
    "options", [("evaluation.batch_size=1",), ("evaluation.batch_size=7",), ("trainer.devices=2",)]
)
def test_batch_size_and_processes_do_not_change_predictions(
    cli, undisturbed: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    assert_succeeded(cli(*TINY, *options, "out=other", cwd=tmp_path))
    for file in ("predictions.jsonl", "metrics.json"):
        assert (tmp_path / "other" / file).read_bytes() == (undisturbed / file).read_bytes()


@pytest.mark.slow
def test_an_evaluation_killed_at_any_moment_continues(undisturbed: Path, tmp_path: Path) -> None:
    """The evaluation is killed repeatedly, each time after a few more answers, with one or two processes."""
    command = [*TINY, "out=killed", "evaluation.batch_size=4"]
    draw = random.Random(0)
    folder = tmp_path / "killed"
    killed = 0
    for attempt in range(30):
        devices = f"trainer.devices={1 + attempt % 3 // 2}"
        process = start(
            *command,
            devices,
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        enough = len(answered(folder)) + draw.randrange(8, 25)
        while process.poll() is None and len(answered(folder)) < enough:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        _, stderr = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr.decode()
    assert killed >= 3
    assert sorted(path.name for path in folder.iterdir()) == FILES
    for file in ("predictions.jsonl", "metrics.json"):
        assert (folder / file).read_bytes() == (undisturbed / file).read_bytes()


def answered(folder: Path) -> list[bytes]:
    """Return the lines of all prediction files on disk, torn ones included."""
    lines: list[bytes] = []
    for part in folder.glob("predictions*.jsonl"):
        with suppress(FileNotFoundError):  # the parts go when all is done
            lines += part.read_bytes().splitlines()
    return lines


def test_a_second_evaluation_of_the_same_folder_is_refused(cli, undisturbed: Path) -> None:
    with FileLock(undisturbed / ".lock"):
        done = cli(*TINY, "out=alone", cwd=undisturbed.parent)
    assert done.returncode == 1
    busy = f"another process is evaluating into {undisturbed}: wait for it, or choose another out=…"
    assert done.stderr.startswith(f"error: {busy} (")
    (undisturbed / ".lock").unlink()


def test_a_run_evaluated_into_another_folder_stays_unchanged(cli, run: Path, listing) -> None:
    before = listing(run)
    done = cli("task=evaluate", "run=moved", "threads=1", "out=elsewhere", cwd=run.parent)
    assert_succeeded(done)
    assert listing(run) == before
    assert sorted(path.name for path in (run.parent / "elsewhere").iterdir()) == FILES
    assert read_predictions(run.parent / "elsewhere" / "predictions.jsonl") == read_predictions(
        run / "eval" / "after.jsonl"
    )


# ---- of a file ----


@pytest.fixture
def stored(undisturbed: Path, tmp_path: Path) -> Path:
    return shutil.copy(undisturbed / "predictions.jsonl", tmp_path / "stored.jsonl")


def test_metrics_of_a_file_need_no_model(cli, undisturbed: Path, stored: Path, listing) -> None:
    before = listing(stored.parent)
    broken = ("model=pretrained", "model.checkpoint=nowhere")
    done = cli("task=evaluate", "run=stored.jsonl", *broken, cwd=stored.parent)
    assert_succeeded(done)
    assert listing(stored.parent) == before
    of_folder = cli("task=evaluate", f"run={undisturbed}", "out=again", cwd=stored.parent)
    assert_succeeded(of_folder)
    assert (stored.parent / "again" / "metrics.json").read_bytes() == (undisturbed / "metrics.json").read_bytes()
    tables = [one.stdout.split("\n\n")[1].strip() for one in (done, of_folder)]
    assert tables[0] == tables[1]


def test_problems_of_a_prediction_file_are_named_and_the_rest_counts(cli, stored: Path) -> None:
    lines = stored.read_text().splitlines()
    stored.write_text("\n".join([*lines, lines[3], lines[0].replace("tallyqa_heldout_30/1", "other/1"), lines[5][:50]]))
    done = cli("task=evaluate", "run=stored.jsonl", "data=shapes20", "data.val=[{shapes: 31}]", cwd=stored.parent)
    assert done.returncode == 1, "ids of thirty-one others"
    assert done.stderr == (
        f"error: {stored}: no prediction is for a sample of the data: the file has sample shapes_tallyqa_heldout_30/1, "
        "the data has shapes_tallyqa_heldout_31/1\n"
    )
    options = ("data=shapes20", "data.val=[{shapes: 30}]")
    done = cli("task=evaluate", "run=stored.jsonl", *options, cwd=stored.parent)
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.splitlines()
    assert [line.split(": ", 3)[-1] for line in warnings] == [
        "completion 0 of sample shapes_tallyqa_heldout_30/4 appears twice; the first is used",
        "not valid JSON (Unterminated string starting at: line 1 column 46 (char 45)); is the line cut off?",
        "sample shapes_other/1 is not in the data",
    ]
    assert re.search(r"^samples +60 ", done.stdout, re.M)
    stored.write_text("\n".join(lines[1:]))
    done = cli("task=evaluate", "run=stored.jsonl", *options, cwd=stored.parent)
    assert done.stderr.endswith("sample shapes_tallyqa_heldout_30/1 has no prediction\n")


def test_a_file_without_predictions_is_refused(cli, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n[]\n")
    done = cli("task=evaluate", "run=x.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: {tmp_path}/x.jsonl: holds no prediction that can be used: {tmp_path}/x.jsonl:1: "
        "field 'sample_id' is missing; expected text\n"
    )


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
        (untouched, ("run=nowhere",), r"^\S+/nowhere is not a folder\.$"),
        (untouched, ("run=moved/eval",), r"^\S+/moved/eval is not a run folder: it has no manifest\.json\.$"),
        (
            lambda folder: shutil.rmtree(folder / "checkpoints"),
            ("run=moved",),
            r"^\S+: this run has no checkpoint yet",
        ),
        (of_something_else, ("run=moved",), r"^\S+/last\.ckpt: holds no policy weights, expected a checkpoint "),
        (
            of_fewer_weights,
            ("run=moved",),
            r"^the checkpoint does not fit the model: 1 weight names differ, e.g. model\.lang",
        ),
        (
            of_another_shape,
            ("run=moved",),
            r"^\S+/last\.ckpt: does not fit the model: model\.language_model\.norm\.weight is ",
        ),
        (untouched, ("data.val=null",), r"^there is nothing to evaluate on: data\.val lists nothing; "),
        (untouched, ("out=moved",), r"^out=\S+/moved is taken: choose another out=…$"),
        (untouched, ("run=moved/config.yaml",), r"^\S+ is not a (folder|run folder)"),
        (
            lambda folder: (folder / "checkpoints" / "torn.ckpt").touch(),
            ("run=moved/checkpoints/torn.ckpt",),
            r"^\S+/torn\.ckpt is not a readable checkpoint of the run \S+/moved\.$",
        ),
        (untouched, ("task.max_samples=0",), r"^task\.max_samples is 0, expected at least 1, or null$"),
        (untouched, ("out=moved/manifest.json/x",), r"^out=\S+/x cannot be made: \S+/manifest\.json is in the way$"),
        (
            untouched,
            ("evaluation.batch_size=0",),
            r"^evaluation\.batch_size is 0, expected a whole number of at least ",
        ),
    ],
)
def test_an_invalid_evaluation_is_refused_and_changes_nothing(
    compose_config, run: Path, listing, monkeypatch, spoil, overrides, message
) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning leaves it behind
    spoil(run)
    before = listing(run.parent)
    with pytest.raises((UserError, HydraException)) as error:
        cfg = compose_config("task=evaluate", "trainer.accelerator=cpu", *overrides)
        evaluate_model(cfg, max_samples=cfg.task.max_samples)
    line = app.one_line(error.value)
    assert re.search(message, line), line
    assert listing(run.parent) == before


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("+experiment=tiny", "error: +experiment=tiny cannot be given with a run: the run has its own config\n"),
        ("name=a/b", "error: name is 'a/b', expected a name for a folder, such as baseline\n"),
        ("~callbacks", "error: ~callbacks cannot be given with a run: the run has its own config\n"),
    ],
)
def test_a_recipe_for_a_run_that_has_its_own_is_refused(cli, run: Path, override: str, line: str) -> None:
    done = cli("task=evaluate", "run=moved", override, cwd=run.parent)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line.format(run=run))
