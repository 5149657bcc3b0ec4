"""Time and memory of a training step as one size grows: completions, prompt length, completion length or images.

    python benchmarks/scaling.py
    python benchmarks/scaling.py generations new_tokens --size tiny

Beside each measured time stands a prediction: the seconds of each phase at the smallest value, scaled by the number of
operations of that phase. The values of an axis are measured in turns.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from steps.floors import model_size, step_size
from steps.measure import command, machine, markdown, median, peak, seconds, spread, take_turns, write
from steps.ours import module_of, prompt_tokens
from steps.sizes import SIZES, Size

from grit_lightning.training.step_time import operations

AXES: dict[str, tuple[int, ...]] = {
    "generations": (4, 8, 16), "prompt_words": (10, 250, 750), "new_tokens": (32, 128, 256), "prompts": (1, 2, 4),
}  # fmt: skip
NAMES = {
    "generations": "completions of a prompt", "prompt_words": "tokens of a prompt",
    "new_tokens": "tokens of a completion", "prompts": "images of a step",
}  # fmt: skip

PASS_TOKENS = 2600
"""Token limit of a pass, high enough to hold every group in one row, so that splitting does not affect the times."""


def main() -> None:
    """Measure each axis, print the tables and write them to the output folder."""
    parser = argparse.ArgumentParser(description="Measure a training step as one size grows.")
    parser.add_argument("axes", nargs="*", help=f"axes to measure: {', '.join(AXES)} (default: all)")
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--repeats", type=int, default=3, help="measured steps per value (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    base = replace(SIZES[options.size], pass_tokens=PASS_TOKENS)
    module, _ = module_of(base)
    tables, data = [], {"command": command(), "machine": machine(), "size": asdict(base), "axes": {}}
    for axis in options.axes or AXES:
        sizes = {str(value): replace(base, **{axis: value}) for value in AXES[axis]}
        steps = take_turns(
            {name: ("steps.ours", size) for name, size in sizes.items()}, options.repeats, 1, options.out / "logs"
        )
        data["axes"][axis] = steps
        prompt = {name: prompt_tokens(module, size) for name, size in sizes.items()}
        model = model_size(module.backbone)
        counted = {
            name: operations(step_size(size, prompt[name]), model, recompute=False) for name, size in sizes.items()
        }
        tables.append(_table(axis, sizes, steps, prompt, counted))
    write(options.out, f"scaling_{base.name}", f"    {command()}\n\n" + "\n\n".join(tables), data)


def _table(
    axis: str, sizes: dict[str, Size], steps: dict[str, list[dict]], prompt: dict[str, int],
    counted: dict[str, dict[str, float]],
) -> str:  # fmt: skip
    first = next(iter(sizes))
    rows = [[NAMES[axis], "step, s", "ratio", "predicted", "ms a completion token", "peak memory, GiB"]]
    rows.append(["--:"] * len(rows[0]))
    for name, size in sizes.items():
        predicted = sum(
            median(steps[first], lambda step, p=phase: step["phases"][p]) * counted[name][phase] / counted[first][phase]
            for phase in counted[first]
        )
        taken = median(steps[name], seconds)
        rows.append(
            [
                str(prompt[name]) if axis == "prompt_words" else name,
                spread([seconds(step) for step in steps[name]]),
                f"{taken / median(steps[first], seconds):.2f}",
                f"{predicted / median(steps[first], seconds):.2f}",
                f"{1000 * taken / size.completion_tokens:.1f}",
                f"{peak(steps[name]):.2f}",
            ]
        )
    return markdown(rows)


if __name__ == "__main__":
    main()
