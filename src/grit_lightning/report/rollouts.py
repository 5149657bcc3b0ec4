"""The part of a page with a run's rollouts, by step, prompt and group."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from grit_lightning.report.answers import asked
from grit_lightning.report.choice import evenly_spaced
from grit_lightning.report.completions import html_size, shown
from grit_lightning.report.pictures import Pictures
from grit_lightning.runs.rollout_store import RolloutStore

MOST_COMPLETIONS = 1500
"""Completions of rollouts on a page; of a longer run, evenly spaced steps are shown, each whole."""

ROLLOUT_BYTES = 5_000_000
"""Approximate bytes of rollouts on a page, images apart; it limits the number of steps in the same way."""


def rollouts_part(store: RolloutStore, pictures: Pictures) -> dict[str, Any]:
    """Return the steps that are shown, each with all of its groups; nothing for a run without rollouts."""
    every = store.steps()
    if not every:
        return {}
    last = store.read(every[-1])
    by_bytes = ROLLOUT_BYTES // max(1, sum(map(html_size, last)))
    chosen = evenly_spaced(every, max(2, min(by_bytes, MOST_COMPLETIONS // max(1, len(last)))))
    steps = [_step(number, store.read(number), pictures) for number in chosen[:-1]] + [_step(every[-1], last, pictures)]
    groups = [group for step in steps for group in step["groups"]]
    return {
        "steps": steps,
        "steps_note": f"{len(chosen)} of {len(every)} steps, each with all of its completions"
        + ("" if len(chosen) == len(every) else ", evenly spaced"),
        "samples": sorted({group["sample_id"] for group in groups}),
        "datasets": sorted({group["dataset"] for group in groups}),
    }


def _step(number: int, records: Sequence[dict[str, Any]], pictures: Pictures) -> dict[str, Any]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["slot"], []).append(record)
    rewards = [record["reward"] for record in records if record["reward"] is not None]
    return {
        "number": number,
        "reward": f"{fmean(rewards):.3g}" if rewards else "-",
        "groups": [
            asked(group[0]) | {"completions": [shown(one, pictures.of(one)) for one in group]}
            for group in groups.values()
        ],
    }
