"""Accuracy of every prompt on the bundled shapes world, before and after training, with 95 % intervals.

    python benchmarks/prompts.py OUT

Prints a Markdown table. The trained models are those of the bare command: the runs ``OUT/GRPO-GR_SEED`` of
``shapes.py``, which are trained if missing. Existing evaluations are reused, so an interrupted benchmark continues when
it is started again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from shapes import LINES, SEEDS, measure
from tqdm import tqdm

from grit_lightning.evaluation.intervals import differences, intervals
from grit_lightning.evaluation.metrics import sample_values, summary
from grit_lightning.evaluation.predictions import Prediction, read_predictions
from grit_lightning.evaluation.tables import difference, interval, number

PROMPTS = ("plain", "cot", "boxes_then_answer", "grounded", "grounded_icl", "grounded_prefilled")
RESAMPLES = 2000
TRAINED = next(line for line in LINES if line.name == "GRPO-GR")
METRICS = {"accuracy": "accuracy", "grounding_iou": "IoU", "grounded_format": "grounded form"}


def evaluated(out: Path, prompt: str, seed: int | None) -> list[Prediction]:
    """Return the predictions with a prompt, evaluating first if ``OUT/prompts`` does not have them.

    Args:
        out: folder of the runs.
        prompt: option of the group ``prompt``.
        seed: seed of the trained model; ``None`` for the bundled model before training.

    Raises:
        RuntimeError: the evaluation command failed.
    """
    folder = out / "prompts" / (f"{prompt}_base" if seed is None else f"{prompt}_trained_{seed}")
    if not (folder / "metrics.json").is_file():
        command = [sys.executable, "-m", "grit_lightning", "task=evaluate", f"prompt={prompt}", "threads=1"]
        of_run = [] if seed is None else [f"run={out / f'{TRAINED.name}_{seed}'}"]
        with (out / "prompts" / f"{folder.name}.log").open("w") as log:
            done = subprocess.run(
                [*command, *of_run, f"out={folder}"], stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise RuntimeError(f"{folder.name}: failed, see {log.name}")
    return read_predictions(folder / "predictions.jsonl")[0]


def table(found: Mapping[tuple[str, int | None], Sequence[Prediction]]) -> str:
    """Return the Markdown table, one row per prompt.

    A row has the metrics of the base model and of the first seed, their difference in accuracy, and the accuracies of
    the other seeds.

    Args:
        found: predictions by prompt and seed; the seed ``None`` is the base model.
    """
    first, *others = SEEDS
    heads = [f"{title}, {which}" for title in METRICS.values() for which in ("base", "trained")]
    heads[2:2] = ["difference", f"seeds {', '.join(map(str, others))}"]
    rows = [["prompt", *heads], ["---", *("--:" for _ in heads)]]
    for prompt in PROMPTS:
        base, trained = found[prompt, None], found[prompt, first]
        columns = [_cells(base), _cells(trained)]
        cells = [column[metric] for metric in METRICS for column in columns]
        change = differences(sample_values(base), sample_values(trained), resamples=RESAMPLES)["accuracy"]
        more = [number(summary(found[prompt, seed])["overall"]["accuracy"]) for seed in others]
        cells[2:2] = [difference(change), ", ".join(more)]
        rows.append([prompt, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cells(predictions: Sequence[Prediction]) -> dict[str, str]:
    values, ends = (of["overall"] for of in (summary(predictions), intervals(predictions, resamples=RESAMPLES)))
    return {metric: f"{number(values[metric])} ({interval(ends[metric])})" for metric in METRICS}


def main() -> None:
    """Run the missing trainings and evaluations, then print the table."""
    parser = argparse.ArgumentParser(
        description="Evaluate every prompt on the shapes world, before and after training."
    )
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, of one thread each (default: 2)")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    (out / "prompts").mkdir(parents=True, exist_ok=True)
    tasks = [(prompt, seed) for seed in (None, *SEEDS) for prompt in PROMPTS]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: measure(TRAINED, seed, out), SEEDS))
        every: Any = pool.map(lambda task: evaluated(out, *task), tasks)
        found = dict(zip(tasks, tqdm(every, total=len(tasks), unit="evaluation"), strict=True))
    print(table(found))


if __name__ == "__main__":
    main()
