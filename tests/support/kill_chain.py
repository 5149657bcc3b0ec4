"""Kill a small training at random moments of every phase until it is done, and compare it with an undisturbed one.

Run as ``python tests/support/kill_chain.py FOLDER KILLS [SEED]``. Each life is the same command, ``out=DIR
resume=auto``. When a run is done, it must have the weights and rollouts of the undisturbed run, bit by bit; then the
next run begins, until there have been KILLS kills.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import torch

COMMAND = (
    "threads=1", "trainer.accelerator=cpu", "trainer.max_steps=20", "data.val=[{shapes: 24}]", "reward=digits",
    "rollout.num_generations=3", "rollout.max_new_tokens=24", "rollout.stop=q", "data.prompts_per_step=3",
    "callbacks.checkpoint.last_every_n_steps=2", "callbacks.checkpoint.every_n_steps=6",
    "evaluation.during_training.every_n_steps=5", "evaluation.max_new_tokens=40", "model.random_weights_seed=0",
    "objective.iterations=2", "resume=auto",
)  # fmt: skip


def start(out: Path) -> subprocess.Popen[bytes]:
    """Start one life of a run."""
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "grit_lightning", *COMMAND, f"out={out}"],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log,
        )  # fmt: skip


def phase(out: Path) -> str:
    """Name what a run is doing, from the files that it has written."""
    if not (out / "manifest.json").exists():
        return "before the run folder"
    if not (out / "eval" / "before.jsonl").exists():
        return "answering before training"
    if any((out / "checkpoints").glob(".*.tmp")):
        return "writing a checkpoint"
    steps = len(list((out / "rollouts").glob("*.jsonl")))
    if steps == 20:
        return "answering after training"
    return "training from the start" if not (out / "checkpoints" / "last.ckpt").exists() else "training"


def fingerprint(out: Path) -> dict[str, str]:
    """Return hashes of the rollouts, the answers and the weights."""
    files = [*sorted((out / "rollouts").glob("*.jsonl")), out / "eval" / "before.jsonl", out / "eval" / "after.jsonl"]
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    for name, value in state["state_dict"].items():
        found[name] = hashlib.sha256(value.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    return found


def main(folder: Path, kills: int, seed: int) -> None:
    """Run the chain; exit with status 1 at the first difference or failure."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    if start(folder / "whole").wait() != 0:
        sys.exit(f"the undisturbed run failed: {folder / 'whole.log'}")
    life = time.monotonic() - began
    expected, choose, killed = fingerprint(folder / "whole"), random.Random(seed), Counter[str]()
    number = 0
    while killed.total() < kills:
        out = folder / f"run_{number}"
        while True:
            process = start(out)
            try:
                status = process.wait(timeout=choose.uniform(0.3, 0.9) * life)
            except subprocess.TimeoutExpired:
                killed[phase(out)] += 1
                process.send_signal(signal.SIGKILL)
                process.wait()
                print(f"{killed.total()} kills, {dict(killed)}", flush=True)
                continue
            if status != 0:
                sys.exit(f"a life ended with status {status}: {out.with_suffix('.log')}")
            break
        if fingerprint(out) != expected:
            sys.exit(f"{out} differs from the undisturbed run")
        print(f"run {number} equals the undisturbed run", flush=True)
        number += 1
    print(f"{killed.total()} kills in {number} runs, all equal: {dict(killed)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
