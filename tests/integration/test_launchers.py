"""Tests of sweeps and of several processes that are started by Hydra's plugins, by torchrun, or as by SLURM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FAST = (
    "threads=1", "trainer.accelerator=cpu", "data.val=null", "reward=digits", "trainer.max_steps=2",
    "rollout.num_generations=2", "rollout.max_new_tokens=4", "data.prompts_per_step=2", "model.random_weights_seed=0",
)  # fmt: skip


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def run(words: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | env
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)


def finished(out: Path) -> None:
    assert json.loads((out / "results.json").read_text())["step"] == 2
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert len((out / "rollouts" / "step_000002.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_runs_with_a_launcher_of_hydra(tmp_path: Path, launcher: str) -> None:
    done = run(command("grit_lightning", "-m", f"hydra/launcher={launcher}", *FAST, "out=s", "seed=1,-1,2"), tmp_path)
    assert done.returncode == 1
    for job in (0, 2):
        finished(tmp_path / "s" / str(job))
    table = [line.split()[:2] for line in done.stdout.splitlines()]
    assert ["0", "seed=1"] in table
    assert ["2", "seed=2"] in table
    assert "seed=-1): seed is -1, expected 0 to" in done.stderr
    assert "error: 1 job failed:" in done.stderr


def test_the_slurm_launcher_composes_with_a_task_per_device(tmp_path: Path) -> None:
    options = ("hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=8", "trainer.devices=8", "strategy=ddp")
    done = run(command("grit_lightning", *options, "--cfg", "hydra", "-p", "hydra.launcher"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tasks_per_node: 8" in done.stdout


def test_several_devices_within_a_sweep_are_refused_with_what_to_do(tmp_path: Path) -> None:
    done = run(command("grit_lightning", "-m", *FAST, "strategy=ddp", "trainer.devices=2", "out=s"), tmp_path)
    assert done.returncode == 1
    assert "trainer.devices=2 cannot be used in a sweep" in done.stderr
    assert "hydra.launcher.tasks_per_node=2" in done.stderr
    assert "Traceback" not in done.stderr


def test_torchrun_starts_the_processes(tmp_path: Path) -> None:
    launcher = ("torch.distributed.run", "--nproc_per_node=2", "--master_port=29617", "-m", "grit_lightning")
    done = run(command(*launcher, *FAST, "strategy=ddp", "trainer.devices=2", "out=r"), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    finished(tmp_path / "r")


def together(tmp_path: Path, commands: list[list[str]], environments: list[dict[str, str]]) -> None:
    processes = [
        subprocess.Popen(
            words, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"} | env, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for words, env in zip(commands, environments, strict=True)
    ]  # fmt: skip
    for process in processes:
        error = process.communicate(timeout=240)[1]
        assert process.returncode == 0, error[-3000:]
    finished(tmp_path / "r")


def test_two_agents_of_torchrun_are_two_nodes(tmp_path: Path) -> None:
    agent = ("torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1")
    options = (*FAST, "strategy=ddp", "trainer.num_nodes=2", "out=r")
    commands = [
        command(*agent, "--master_port=29618", f"--node_rank={rank}", "-m", "grit_lightning", *options)
        for rank in range(2)
    ]
    together(tmp_path, commands, [{}, {}])


def test_two_tasks_of_slurm_train_together(tmp_path: Path) -> None:
    options = (*FAST, "strategy=ddp", "trainer.devices=2", "out=r")
    tasks = [
        {
            "SLURM_JOB_ID": "29619", "SLURM_JOB_NAME": "grit", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
            "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29619",
        }
        for rank in range(2)
    ]  # fmt: skip
    together(tmp_path, [command("grit_lightning", *options)] * 2, tasks)
