"""Measurement of several sides in turn, and the report: medians, ratios, tables, description of the machine."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from steps.gate import Side
from steps.lengths import lengths
from steps.sizes import Size

Steps = list[dict[str, Any]]

PHASES = ("rollout", "reference", "update", "other")


def take_turns(sides: Mapping[str, tuple[str, Size]], repeats: int, warm_up: int, logs: Path) -> dict[str, Steps]:
    """Measure the steps of all sides in turn, so that other load on the machine affects all sides alike.

    Args:
        sides: module and size of each side, by name.
        repeats: number of measured steps per side.
        warm_up: number of steps before the measured ones.
        logs: folder for the output of the sides.

    Returns:
        The reports of the measured steps, by name of the side.
    """
    logs.mkdir(parents=True, exist_ok=True)
    running: dict[str, Side] = {}
    steps: dict[str, Steps] = {name: [] for name in sides}
    for name, (module, size) in sides.items():  # one after the other, as loading is not measured
        running[name] = Side(module, size, logs / f"{name.replace('/', '_')}.log")
        running[name].step()
    for number in range(1 - warm_up, repeats):
        for name, side in running.items():
            step = side.step()
            if number >= 0:
                steps[name].append(step)
                print(f"{name}: {step['seconds']:.2f} s", flush=True)
    for side in running.values():
        side.close()
    return steps


def median(steps: Steps, value: Callable[[dict[str, Any]], float]) -> float:
    """Return the median of ``value`` over the steps."""
    return statistics.median(map(value, steps))


def seconds(step: dict[str, Any]) -> float:
    """Return the duration of a step in seconds."""
    return float(step["seconds"])


def peak(steps: Steps) -> float:
    """Return the peak memory of the process in GiB, over all steps including the warm-up."""
    return float(steps[-1]["peak_gib"])


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return ``median (lowest to highest)`` as text."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(first: Steps, second: Steps) -> list[float]:
    """Return, for each turn, the seconds of the first side divided by those of the second."""
    return [seconds(a) / seconds(b) for a, b in zip(first, second, strict=True)]


def step_table(size: Size, steps: Mapping[str, Steps]) -> str:
    """Return a table of phases, step time, tokens per second and peak memory by side; with a ratio for two sides."""
    names = list(steps)
    rows = [["", *names], ["---", *("--:" for _ in names)]]
    for phase in PHASES:
        rows.append(
            [f"{phase}, s", *(f"{median(s, lambda one, p=phase: one['phases'][p]):.2f}" for s in steps.values())]
        )
    rows.append(["step, s", *(spread([seconds(one) for one in s]) for s in steps.values())])
    tokens = sum(lengths(size))
    rate = [tokens / median(s, seconds) for s in steps.values()]
    rows.append(["completion tokens a second", *(f"{value:.0f}" for value in rate)])
    rows.append(["peak memory, GiB", *(f"{peak(s):.2f}" for s in steps.values())])
    if len(names) == 2:
        first, second = steps.values()
        rows[0].append("ratio")
        rows[1].append("--:")
        for row in rows[2:-1]:
            row.append("")
        rows[-3][-1] = spread(ratios(second, first))
        rows[-1].append(f"{peak(second) / peak(first):.2f}")
        for row, phase in zip(rows[2:], PHASES[:3], strict=False):
            value = [median(s, lambda one, p=phase: one["phases"][p]) for s in (second, first)]
            row[-1] = f"{value[0] / value[1]:.2f}"
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def command() -> str:
    """Return the command line of this benchmark."""
    return f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(sys.argv[1:])}".strip()


def machine() -> dict[str, Any]:
    """Return processor, number of cores, GPU and versions of the libraries."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "lightning", "trl")},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def write(out: Path, name: str, text: str, data: Mapping[str, Any], *, show: bool = True) -> None:
    """Write ``NAME.md`` with the text and ``NAME.json`` with the data to a folder, and print the text."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text + "\n")
    (out / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    if show:
        print(text)
