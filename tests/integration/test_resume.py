"""Tests of stopped runs: one that is killed and resumed has the rollouts and weights of an uninterrupted one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from support.processes import start

STEPS = 6
OPTIONS = (
    "reward=digits", "rollout.num_generations=3", "rollout.max_new_tokens=16", "rollout.stop=q",
    "data.prompts_per_step=3", f"trainer.max_steps={STEPS}", "callbacks.checkpoint.last_every_n_steps=2",
    "data.val=null", "objective.iterations=2", "threads=1", "model.random_weights_seed=0",
)  # fmt: skip


def assert_succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def stop_after(out: Path, step: int, with_signal: signal.Signals) -> tuple[int, str]:
    """Start a run, signal it once it has written the rollouts of ``step``, and return its exit status and stderr."""
    with start(*OPTIONS, f"out={out}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (out / "rollouts" / f"step_{step:06d}.jsonl").exists():
            assert process.poll() is None, process.stderr.read()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(with_signal)
        return process.wait(), process.stderr.read()


def records(out: Path) -> dict[str, list[dict]]:
    files = sorted((out / "rollouts").glob("*.jsonl"))
    return {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


@pytest.mark.slow
def test_killed_and_resumed_equals_never_stopped(cli, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert_succeeded(cli(*OPTIONS, f"out={whole}", cwd=tmp_path))
    status, _ = stop_after(killed, 3, signal.SIGKILL)  # one step past the checkpoint of step 2: that step is done again
    assert status == -signal.SIGKILL
    first = records(killed)
    assert len(first) < STEPS
    assert_succeeded(cli(f"resume={killed}", cwd=tmp_path))
    assert records(killed) == records(whole)
    assert all(records(killed)[name] == lines for name, lines in first.items())
    checkpoints = [torch.load(out / "checkpoints" / "last.ckpt", weights_only=True) for out in (whole, killed)]
    assert [checkpoint["global_step"] for checkpoint in checkpoints] == [STEPS, STEPS]
    for name, value in checkpoints[0]["state_dict"].items():
        assert torch.equal(value, checkpoints[1]["state_dict"][name]), name
    resumes = (killed / "resumes.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in resumes] == [2]


@pytest.mark.slow
def test_sigterm_saves_the_run_and_says_how_to_resume(tmp_path: Path) -> None:
    out = tmp_path / "run"
    status, stderr = stop_after(out, 3, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    done = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 3 <= done < STEPS
    assert f"the {done} steps done are saved; continue with resume={out}" in stderr
    assert "Traceback" not in stderr


HELD_OUT = ("data.val=[{shapes: 40}]", "evaluation.during_training.every_n_steps=3", "evaluation.max_new_tokens=60")
WITH_ANSWERS = (*(one for one in OPTIONS if one != "data.val=null"), *HELD_OUT)


def saved_step(out: Path) -> int:
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not ready():
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_begins_again(cli, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert_succeeded(cli(*OPTIONS, f"out={whole}", cwd=tmp_path))
    status, _ = stop_after(killed, 1, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not list((killed / "checkpoints").iterdir())
    done = cli(f"resume={killed}", cwd=tmp_path)
    assert_succeeded(done)
    assert f"starting again {killed} after step 0" in done.stderr
    assert records(killed) == records(whole)
    assert json.loads((killed / "resumes.jsonl").read_text())["checkpoint"] is None


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_run_stopped_while_it_answers_the_last_questions_finishes_them_when_resumed(cli, tmp_path, how) -> None:
    out = tmp_path / "run"
    with start(*WITH_ANSWERS, f"out={out}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, lambda: (out / "checkpoints" / "last.ckpt").exists() and len(records(out)) == STEPS)
        wait_for(
            process, lambda: torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == STEPS
        )
        before = time.monotonic()
        process.send_signal(how)
        status, error = process.wait(), process.stderr.read()
    assert time.monotonic() - before < 20  # a second or two on a machine that does nothing else
    assert status == (-how if how == signal.SIGKILL else 128 + how)
    assert "weight update" not in error
    assert not (out / "results.json").exists()
    weights = (out / "checkpoints" / "last.ckpt").read_bytes()
    done = cli(f"resume={out}", cwd=tmp_path)
    assert_succeeded(done)
    assert "after - before" in done.stdout
    assert len((out / "eval" / "after.jsonl").read_text().splitlines()) == 80
    assert (out / "checkpoints" / "last.ckpt").read_bytes() == weights
    assert json.loads((out / "results.json").read_text())["step"] == STEPS
    again = cli(f"resume={out}", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert f"all {STEPS} steps are done" in again.stderr


@pytest.mark.slow
def test_resume_auto_starts_goes_on_and_is_content_with_a_finished_run(cli, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    assert_succeeded(cli(*OPTIONS, f"out={whole}", cwd=tmp_path))
    command = (*OPTIONS, f"out={out}", "resume=auto")
    with start(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, lambda: len(records(out)) == 3)
        process.kill()
        process.wait()
    assert_succeeded(cli(*command, cwd=tmp_path))
    assert records(out) == records(whole)
    done = cli(*command, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"INFO: {out}: all {STEPS} steps are done\n")
    other = cli(*command[1:], cwd=tmp_path)
    assert other.returncode == 1
    assert other.stderr == f"error: resume=auto: {out} was started with {OPTIONS[0]}, which this command lacks\n"
    bare = cli("resume=auto", cwd=tmp_path)
    assert (bare.returncode, "give out=DIR" in bare.stderr) == (1, True)


@pytest.mark.slow
def test_a_second_process_is_told_who_trains_the_run_which_goes_on(cli, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with start(*OPTIONS, f"out={out}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(process, lambda: len(records(out)) >= 2)
        process.send_signal(signal.SIGSTOP)  # so that it does not end meanwhile
        second = cli(f"resume={out}", cwd=tmp_path)
        process.send_signal(signal.SIGCONT)
        assert process.wait() == 0, process.stderr.read()
    assert second.returncode == 1
    assert second.stderr.startswith(
        f"error: {out} is in use: wait until the process that trains it has ended (process "
    )
    assert f"process {process.pid} on " in second.stderr
    assert len(records(out)) == STEPS
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_a_run_whose_inputs_have_changed_is_continued_only_if_that_is_allowed(cli, shapes: Path, tmp_path) -> None:
    command = (*OPTIONS, f"data.root={shapes}", "out=run")
    assert_succeeded(cli(*command, "trainer.max_steps=1", cwd=tmp_path))
    file = next(shapes.glob("*vsr*.jsonl"))
    file.write_text(file.read_text().replace("?", " ?", 1))
    refused = cli("resume=run", "trainer.max_steps=2", cwd=tmp_path)
    assert refused.returncode == 1
    assert f"run was started with other inputs: data: file {file.name} has changed" in refused.stderr
    assert_succeeded(cli("resume=run", "trainer.max_steps=2", "allow_changed=[data]", cwd=tmp_path))
    noted = json.loads((tmp_path / "run" / "resumes.jsonl").read_text())
    assert noted["changed"] == [f"data: file {file.name} has changed"]
    assert_succeeded(cli("resume=run", "trainer.max_steps=3", cwd=tmp_path))  # now these are the run's inputs
    unknown = cli("resume=run", "trainer.max_steps=4", "allow_changed=[date]", cwd=tmp_path)
    assert unknown.stderr == "error: allow_changed holds 'date', expected some of data, prompt, reward, judge\n"


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_left_out_by_name(cli, tmp_path: Path) -> None:
    command = (*OPTIONS, "out=run", "trainer.max_steps=2", "callbacks.checkpoint.every_n_steps=1")
    assert_succeeded(cli(*command, cwd=tmp_path))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.unlink()  # step_000002.ckpt is a hard link to it
    last.write_bytes(content)
    done = cli("resume=run", "trainer.max_steps=3", cwd=tmp_path)
    assert_succeeded(done)
    assert f"{last.relative_to(tmp_path)} is damaged and is left out" in done.stderr
    assert "continuing run after step 2" in done.stderr
