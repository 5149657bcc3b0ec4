"""The paper's baselines and ablations of the rewards on the bundled shapes world, as a Markdown table.

    python benchmarks/shapes.py OUT

Each row of the table is one command of the application, run once per seed in a folder below ``OUT``. Existing results
are reused, so an interrupted benchmark continues when it is started again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from grit_lightning.evaluation.completion_metrics import is_grounded

SEEDS = (0, 1, 2)
COLUMNS = {
    "accuracy": "accuracy",
    "grounding_iou": "IoU",
    "grounded_format": "grounded form",
    "sampled": "when sampled",
    "count_consistency": "boxes = count",
    "tokens": "tokens",
}
"""Title of each metric shown. ``sampled`` is measured on the rollouts, all others on the evaluation."""

LAST_STEPS = 10
"""Number of final training steps whose rollouts count for ``sampled``."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table.

    Attributes:
        name: title of the row; folder names are made from it.
        overrides: overrides added to the bare command.
        trained: True if the command trains a model, so that the result depends on the seed.
    """

    name: str
    overrides: str
    trained: bool = True

    @property
    def command(self) -> str:
        """The command as a user types it, with ``seed=S`` for the seed."""
        return " ".join(filter(None, ("python -m grit_lightning", self.overrides, "seed=S" if self.trained else "")))


def _without(*parts: str) -> str:
    return " ".join(f"reward.components.{part}=0" for part in parts)


LINES = (
    Line("zero-shot, plain prompt", "task=evaluate prompt=plain", trained=False),
    Line("zero-shot, grounded prompt", "task=evaluate", trained=False),
    Line("one example in context", "task=evaluate prompt=grounded_icl", trained=False),
    Line("zero-shot, grounded form forced", "task=evaluate prompt=grounded_prefilled", trained=False),
    Line("SFT on the 20 samples", "task=sft"),
    Line("SFT, 14 times the rate", "task=sft optimizer.lr=1e-3"),
    Line("GRPO, accuracy alone", "reward=accuracy"),
    Line("GRPO-GR", ""),
    Line(
        "GRPO-GR without format", _without("answer_format.weight", "think_rethink.weight", "grounded_region.fn.any_box")
    ),
    Line("GRPO-GR without counting", _without("grounded_region.fn.count_match")),
    Line("GRPO-GR without answer", _without("answer_match.weight", "answer_bleu.weight")),
)


def measure(line: Line, seed: int, out: Path) -> dict[str, float | None]:
    """Return the metrics of one run over all held-out questions, and run or resume its command first if needed.

    Raises:
        RuntimeError: the command failed.
    """
    folder = out / f"{line.name.replace(' ', '_').replace(',', '')}_{seed}"
    evaluated = "task=evaluate" in line.overrides
    metrics = folder / ("metrics.json" if evaluated else "eval/metrics.json")
    if not metrics.is_file():
        command = [sys.executable, "-m", "grit_lightning", *line.overrides.split(), f"seed={seed}", "threads=1"]
        resumed = [sys.executable, "-m", "grit_lightning", f"resume={folder}"]
        begun = (folder / "checkpoints" / "last.ckpt").is_file()
        with (out / f"{folder.name}.log").open("w") as log:
            arguments = resumed if begun else [*command, f"out={folder}"]
            done = subprocess.run(arguments, stdout=log, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"{line.name}, seed {seed}: failed, see {log.name}")
    result = json.loads(metrics.read_text())
    overall: dict[str, float | None] = (result["metrics"] if evaluated else result["after"])["overall"]
    return overall | {"sampled": sampled(folder / "rollouts")}


def sampled(rollouts: Path) -> float | None:
    """Return the share of completions in the grounded form over the last steps; ``None`` without rollouts."""
    files = sorted(rollouts.glob("*.jsonl"))[-LAST_STEPS:]
    completions = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return statistics.mean(is_grounded(one) for one in completions) if completions else None


def cell(values: Sequence[float | None]) -> str:
    """Return mean ± standard deviation over the seeds for which the metric is defined, as text."""
    defined = [value for value in values if value is not None]
    if not defined:
        return "–"
    digits = 1 if max(defined) > 1 else 3
    mean = f"{statistics.mean(defined):.{digits}f}"
    return f"{mean} ± {statistics.stdev(defined):.{digits}f}" if len(defined) > 1 else mean


def table(results: Sequence[tuple[Line, Sequence[dict[str, float | None]]]]) -> str:
    """Return the Markdown table, followed by the command of each row."""
    rows = [["", *COLUMNS.values()], ["---", *("--:" for _ in COLUMNS)]]
    rows += [[line.name, *(cell([run[key] for run in runs]) for key in COLUMNS)] for line, runs in results]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    commands = "\n".join(f"    {line.command:<100}  # {line.name}".rstrip() for line, _ in results)
    return f"{text}\n\n{commands}"


def main() -> None:
    """Run the missing commands, then print the table."""
    parser = argparse.ArgumentParser(description="Run baselines and ablations on the bundled shapes world.")
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, of one thread each (default: 2)")
    parser.add_argument("--only", default="", help="regular expression that selects rows by name (default: all)")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    lines = [line for line in LINES if re.search(options.only, line.name)]
    tasks = [(line, seed) for line in lines for seed in (SEEDS if line.trained else SEEDS[:1])]
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = list(tqdm(pool.map(lambda task: measure(task[0], task[1], out), tasks), total=len(tasks), unit="run"))
    by_line: dict[str, list[dict[str, float | None]]] = {line.name: [] for line in lines}
    for (line, _), run in zip(tasks, runs, strict=True):
        by_line[line.name].append(run)
    print(table([(line, by_line[line.name]) for line in lines]))


if __name__ == "__main__":
    main()
