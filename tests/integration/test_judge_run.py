"""Tests of a training whose judge is a server that is killed, restarted, stays away, and is back for the resume."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from support import processes
from support.chat_server import ChatServer

CANARY = "sk-canary-81b0f2c6aa"
STEPS = 6
OPTIONS = (
    "judge=local", "judge.model=judge-1", "judge.limits.attempts=10", "judge.limits.backoff=0.1",
    "judge.limits.max_wait=2.0", "judge.patience=1", "reward=accuracy", "prompt.prefill='<answer>'",
    "rollout.num_generations=4", "rollout.max_new_tokens=12", "rollout.stop=q", "data.prompts_per_step=2",
    f"trainer.max_steps={STEPS}", "trainer.accelerator=cpu", "callbacks.checkpoint.last_every_n_steps=null",
    "data.val=null", "threads=1", "model.random_weights_seed=0", "optimizer.lr=1e-3",
)  # fmt: skip


ENVIRONMENT = {"JUDGE_API_KEY": CANARY, "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    server.control(key=CANARY)
    yield server
    server.kill()


def start(cwd: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start the command line with the API key in its environment; its output goes to files, as a pipe could block."""
    number = len(list(cwd.glob("*.stderr")))
    with (cwd / f"{number}.stdout").open("w") as stdout, (cwd / f"{number}.stderr").open("w") as stderr:
        return processes.start(*overrides, cwd=cwd, env=ENVIRONMENT, stdout=stdout, stderr=stderr, text=True)


def finish(cwd: Path, process: subprocess.Popen[str]) -> tuple[int, str]:
    status = process.wait(timeout=300)
    return status, sorted(cwd.glob("*.stderr"), key=lambda path: int(path.stem))[-1].read_text()


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    deadline = time.monotonic() + 200
    while not (run / "rollouts" / f"step_{step:06d}.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def records(run: Path) -> dict[str, list[dict[str, Any]]]:
    files = sorted((run / "rollouts").glob("*.jsonl"))
    return {file.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


@pytest.mark.slow
def test_an_outage_of_the_judge_changes_neither_rollouts_nor_weights(
    cli, chat: ChatServer, tmp_path: Path, listing
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    address = f"judge.endpoint.url={chat.url}"
    plain = ("judge.cache=null", "logger=csv", "judge.price.prompt=1", f"out={whole}")
    undisturbed = cli(*OPTIONS, address, *plain, cwd=tmp_path, **ENVIRONMENT)
    assert undisturbed.returncode == 0, undisturbed.stderr

    chat.control(delay=0.3)  # slow enough that the server is killed during a step
    process = start(tmp_path, *OPTIONS, address, f"judge.cache.folder={tmp_path / 'cache'}", f"out={run}")
    wait_for_step(process, run, 1)
    chat.kill()
    time.sleep(0.5)
    chat.start()
    chat.control(key=CANARY, delay=0.3)
    wait_for_step(process, run, 3)
    chat.kill()
    status, stderr = finish(tmp_path, process)
    assert status == 1, stderr
    assert "Traceback" not in stderr
    line = next(line for line in stderr.splitlines() if line.startswith("error: "))
    assert line.startswith(
        "error: training stopped: the judge left 100 % of this step's answers unscored (last reason: cannot connect ("
    )
    done = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert 3 <= done < STEPS
    assert f"the {done} steps done are saved; continue with resume={run}" in stderr
    assert len(records(run)) == done

    before = listing(run)
    refused = cli(f"resume={run}", cwd=tmp_path, **ENVIRONMENT)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)
    line = refused.stderr.splitlines()[-1]
    assert line.startswith(f"error: the judge at {chat.url}/chat/completions cannot be used: cannot connect (")
    assert listing(run) == before

    chat.start()
    chat.control(key=CANARY)
    resumed = cli(f"resume={run}", cwd=tmp_path, **ENVIRONMENT)
    assert resumed.returncode == 0, resumed.stderr
    (tmp_path / "resumed.txt").write_text(resumed.stdout + resumed.stderr)
    (tmp_path / "undisturbed.txt").write_text(undisturbed.stdout + undisturbed.stderr)
    assert records(run) == records(whole)
    states = [torch.load(one / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for one in (whole, run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    check_what_is_stored(records(whole))
    check_metrics(whole)
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.startswith("events.out") for path in kept)
    assert any(path.name == "replies.sqlite" for path in kept)
    assert not [path for path in kept if CANARY.encode() in path.read_bytes()], "the key is in no file"


def check_what_is_stored(steps: dict[str, list[dict[str, Any]]]) -> None:
    rewards = [record["rewards"] for lines in steps.values() for record in lines]
    assert all(one["answer_match"] == float(one["answer_score"] > 0) for one in rewards)
    assert {one["answer_match"] for one in rewards} == {0.0, 1.0}
    assert any(0 < one["answer_score"] < 1 for one in rewards)


def check_metrics(run: Path) -> None:
    with (run / "metrics" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["judge/questions"]]
    assert len(rows) == STEPS
    asked = sum(float(row["judge/requests"]) for row in rows)
    assert sum(float(row["judge/questions"]) for row in rows) == STEPS * 8 * 2, "each answer for two rewards …"
    assert 0 < asked <= STEPS * 8, "… and once of the server"
    assert {float(row["judge/unscored"]) for row in rows} == {0.0}
    assert sum(float(row["judge/cost"]) for row in rows) == pytest.approx(asked * 100 / 1e6)
    assert all(0 < float(row["judge/latency_p50"]) <= float(row["judge/latency_p95"]) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_an_unusable_judge_ends_the_task_before_it_begins(chat: ChatServer, tmp_path: Path, task: str) -> None:
    chat.control(key="another")
    overrides = (f"task={task}", "judge=local", "judge.model=judge-1", f"judge.endpoint.url={chat.url}")
    status, stderr = finish(tmp_path, start(tmp_path, "+debug=fast", "threads=1", *overrides))
    assert (status, "Traceback" in stderr) == (1, False)
    assert stderr.splitlines()[-1] == (
        f"error: the judge at {chat.url}/chat/completions cannot be used: HTTP 401 Unauthorized: Incorrect API key "
        "provided: ***; check the key in JUDGE_API_KEY"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.stderr", "0.stdout"]
