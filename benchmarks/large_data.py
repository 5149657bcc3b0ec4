"""A run on a large data set: seconds to the first step, memory, waiting for prompts, and a kill with a resume.

    python benchmarks/large_data.py                     # 100,000 samples about 500 images, 500 steps
    python benchmarks/large_data.py --images 100000     # an image file for each sample

It draws the data, trains the bundled model on it with short completions, starts a second time, and kills and resumes a
third run, which must have the rollouts and weights of an undisturbed one, bit by bit.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from steps.measure import command, machine, markdown, write

SIDE = 112
"""Width and height of the images in pixels: 16 image tokens each."""

TRAINING = (
    "threads=1", "trainer.accelerator=cpu", "data.val=null", "rollout.num_generations=2", "rollout.max_new_tokens=4",
    "data.prompts_per_step=4", "logger=csv", "callbacks.checkpoint.last_every_n_steps=10",
    "callbacks.checkpoint.every_n_steps=null",
)  # fmt: skip


def draw(folder: Path, samples: int, images: int) -> Path:
    """Write JPEG images of noise and questions about them; return the data file."""
    (folder / "images").mkdir(parents=True)
    drawn = np.random.default_rng(0)
    for index in range(images):
        pixels = Image.fromarray(drawn.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        pixels.save(folder / "images" / f"{index}.jpg")
    choose = random.Random(0)
    with (folder / "large.jsonl").open("w") as file:
        for number in range(samples):
            box = [choose.randrange(50), choose.randrange(50), choose.randrange(60, SIDE), choose.randrange(60, SIDE)]
            record = {
                "question": f"How many red circles are left of number {number}?", "answer": choose.randrange(9),
                "image": f"{number % images}.jpg", "width": SIDE, "height": SIDE, "bboxs": [box], "number": number,
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")
    return folder / "large.jsonl"


class Life:
    """A training process, watched while it runs.

    Attributes:
        first_step: seconds from the start until the first rollouts lie on the disk.
        resident: resident memory in MiB by number of steps on the disk.
    """

    def __init__(self, out: Path, options: Sequence[str], *, cache: Path) -> None:
        self.out = out
        self.resident: dict[int, float] = {}
        self.first_step = float("nan")
        self._began = time.monotonic()
        with out.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "grit_lightning", *options],
                env=os.environ | {"OMP_NUM_THREADS": "1", "GRIT_LIGHTNING_CACHE": str(cache)}, stdout=log, stderr=log,
            )  # fmt: skip

    def watch(self, *, kill_at: int | None = None) -> Life:
        """Wait for the end, or kill the process when ``kill_at`` steps lie on the disk."""
        while self.process.poll() is None:
            steps = len(list((self.out / "rollouts").glob("*.jsonl")))
            if steps and math.isnan(self.first_step):
                self.first_step = time.monotonic() - self._began
            if steps and (resident := self._resident_mib()) is not None:
                self.resident[steps] = resident
            if kill_at is not None and steps >= kill_at:
                self.process.send_signal(signal.SIGKILL)
                self.process.wait()
                return self
            time.sleep(0.05)
        if self.process.returncode != 0:
            log = self.out.with_suffix(".log").read_text()
            sys.exit(f"a run ended with status {self.process.returncode}:\n{log[-2000:]}")
        return self

    def _resident_mib(self) -> float | None:
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:  # it has just ended
            return None
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), None)


def metrics(out: Path, name: str) -> list[float]:
    """Return the values of a metric, by step."""
    with next((out / "metrics").glob("version_*/metrics.csv")).open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def fingerprint(out: Path) -> dict[str, str]:
    """Return hashes of the rollouts and the weights."""
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (out / "rollouts").glob("*.jsonl")}
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return found | {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in state.items()}


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Draw the data, run the trainings in ``folder``, and return the figures."""
    data = draw(folder, options.samples, options.images)
    cache = folder / "cache"

    def start(name: str, steps: int) -> Life:
        given = [*TRAINING, f"data.train={data}", f"trainer.max_steps={steps}", *options.changes]
        return Life(folder / name, [f"out={folder / name}", *given], cache=cache)

    first = start("first", options.steps).watch()
    second = start("second", options.resumed).watch()
    killed = start("killed", options.resumed).watch(kill_at=options.resumed * 2 // 3).out
    Life(killed, [f"resume={killed}"], cache=cache).watch()
    waits, steps = metrics(first.out, "time/data"), metrics(first.out, "time/step")
    tenth = max(1, options.steps // 10)
    early, late = ([v for step, v in first.resident.items() if low <= step <= high] for low, high in (
        (tenth, 2 * tenth), (options.steps - tenth, options.steps)))  # fmt: skip
    return {
        "samples": options.samples, "images": options.images, "steps": options.steps,
        "first start, s": first.first_step, "second start, s": second.first_step,
        "resident, early MiB": statistics.median(early), "resident, late MiB": statistics.median(late),
        "step, median s": statistics.median(steps), "wait, median s": statistics.median(waits[2:]),
        "wait, 99 % s": float(np.quantile(waits[2:], 0.99)), "wait, largest s": max(waits[2:]),
        "killed and resumed run is equal": fingerprint(killed) == fingerprint(second.out),
    }  # fmt: skip


def main() -> None:
    """Measure, print a table and write it to the output folder."""
    parser = argparse.ArgumentParser(description="Measure a run on a large data set.")
    parser.add_argument("changes", nargs="*", help="further overrides, such as data.workers=2")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=500, help="image files that the samples share (default: 500)")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--resumed", type=int, default=30, help="steps of the run that is killed (default: 30)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), options)
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in found.items()}
    table = markdown([("figure", "value"), ("---", "---"), *shown.items()])
    data = {"command": command(), "machine": machine(), "figures": found}
    write(options.out, "large_data", f"    {command()}\n\n{table}", data)


if __name__ == "__main__":
    main()
