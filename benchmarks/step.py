"""A training step, ours and TRL's, side by side: seconds of each phase, tokens a second, peak memory.

    pip install -e '.[bench]'
    python benchmarks/step.py tiny
    python benchmarks/step.py small
    python benchmarks/step.py 3b          # on a GPU

The same random weights, images, prompts, group size, completion length, optimizer and precision; each side is a process
of its own, and they take turns step by step.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from steps.measure import command, machine, step_table, take_turns, write
from steps.sizes import SIZES, Size

MODULES = {"ours": "steps.ours", "TRL": "steps.peer"}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description="A training step, ours and TRL's, side by side.")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument(
        "changes", nargs="*", help="of the size, KEY=VALUE, such as generations=16 text.vocab_size=4096"
    )
    parser.add_argument("--sides", nargs="+", default=list(MODULES), choices=MODULES)
    parser.add_argument("--repeats", type=int, default=5, help="measured steps of each side (5)")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before them (1)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (runs/benchmarks)")
    options = parser.parse_args()
    size: Size = SIZES[options.size].changed(options.changes)
    sides = {name: (MODULES[name], size) for name in options.sides}
    steps = take_turns(sides, options.repeats, options.warm_up, options.out / "logs")
    data = {"command": command(), "machine": machine(), "size": asdict(size), "steps": steps}
    write(options.out, f"step_{size.name}", f"    {command()}\n\n{step_table(size, steps)}", data)


if __name__ == "__main__":
    main()
