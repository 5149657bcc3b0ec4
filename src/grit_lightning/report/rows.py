"""A run's rollouts as flat rows, for a table or a data frame, and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.report.completions import score_texts
from grit_lightning.runs.rollout_store import RolloutStore
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.printable import printable_lines


def newest_run(*folders: str | Path) -> Path:
    """Return the run that was started last, of a single run or a sweep, below any of the folders.

    Raises:
        DataError: there is none.
    """
    manifests = [file for folder in folders for file in Path(folder).glob("**/manifest.json")]
    if not manifests:
        raise DataError("no run below it", ", ".join(map(str, folders)))
    return max(manifests, key=lambda file: file.stat().st_mtime).parent


def step_records(run: str | Path, step: int | None = None) -> list[dict[str, Any]]:
    """Return the stored completions of a step, as ``runs.records`` describes them, ordered by prompt.

    Args:
        run: the run folder.
        step: the step, from 1; ``None`` for the last.

    Raises:
        DataError: the run has no rollouts of this step.
    """
    store = RolloutStore(RunFolder(Path(run)).rollouts)
    steps = store.steps()
    if not steps or (step is not None and step not in steps):
        raise DataError("holds no rollouts" + ("" if step is None else f" of step {step}"), str(run))
    return sorted(store.read(steps[-1] if step is None else step), key=lambda one: one["slot"])


def rollout_rows(run: str | Path) -> Iterator[dict[str, Any]]:
    """Yield one flat row for each completion of a run: ``pandas.DataFrame(rollout_rows(RUN))``.

    Reward components have the columns ``reward/NAME``; one that could not be scored is ``None``.
    """
    store = RolloutStore(RunFolder(Path(run)).rollouts)
    same = ("step", "sample_id", "dataset", "question", "answer", "completion_index", "parsed_answer", "text", "finish")
    for step in store.steps():
        for record in store.read(step):
            yield {
                **{name: record[name] for name in same},
                "prompt": record["slot"],
                "tokens": record["num_tokens"],
                "boxes": len(record["boxes"]),
                "valid_boxes": sum(box["valid"] for box in record["boxes"]),
                "reward": record["reward"],
                "advantage": record["advantage"],
                **{f"reward/{name}": value for name, value in record["rewards"].items()},
            }


def step_rows(run: str | Path) -> Iterator[dict[str, Any]]:
    """Yield one row for each step: completions, their mean reward (unscored ones left out), and how many hold a box."""
    store = RolloutStore(RunFolder(Path(run)).rollouts)
    for step in store.steps():
        records = store.read(step)
        rewards = [one["reward"] for one in records if one["reward"] is not None]
        yield {
            "step": step,
            "completions": len(records),
            "reward": fmean(rewards) if rewards else None,
            "with a box": sum(bool(one["boxes"]) for one in records),
        }


def described(record: Mapping[str, Any]) -> str:
    """Return a completion as text: what it says, how it ended, its boxes, its rewards and its advantage."""
    rewards = {"total": record["reward"], **record["rewards"]}
    values = "  ".join(f"{name} {value}" for name, value in score_texts(rewards))
    boxes = "".join(f"\n  box {box['label'] or ''} {box['pixels']}" for box in record["boxes"])
    advantage = "-" if record["advantage"] is None else f"{record['advantage']:+.3f}"
    head = f"completion {record['completion_index']}  ({record['num_tokens']} tokens, ended by {record['finish']})"
    return printable_lines(f"{head}\n{record['text']}{boxes}\n  advantage {advantage}  {values}")
