"""Comparison of a training step with TRL's: seconds of each phase, tokens per second, peak memory.

    pip install -e '.[bench]'
    python benchmarks/step.py tiny
    python benchmarks/step.py small
    python benchmarks/step.py 3b          # on a GPU

Both sides have the same random weights, images, prompts, group size, completion length, optimizer and precision. Each
runs in its own process, and the processes take turns step by step.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from steps.measure import command, machine, step_table, take_turns, write
from steps.sizes import SIZES, Size

MODULES = {"ours": "steps.ours", "TRL": "steps.peer"}


def main() -> None:
    """Measure both sides, print the table and write it to the output folder."""
    parser = argparse.ArgumentParser(description="Compare a training step with TRL's.")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("changes", nargs="*", help="changes of the size, such as generations=16 text.vocab_size=4096")
    parser.add_argument("--sides", nargs="+", default=list(MODULES), choices=MODULES)
    parser.add_argument("--repeats", type=int, default=5, help="measured steps per side (default: 5)")
    parser.add_argument("--warm-up", type=int, default=1, help="steps before the measured ones (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    size: Size = SIZES[options.size].changed(options.changes)
    sides = {name: (MODULES[name], size) for name in options.sides}
    steps = take_turns(sides, options.repeats, options.warm_up, options.out / "logs")
    data = {"command": command(), "machine": machine(), "size": asdict(size), "steps": steps}
    write(options.out, f"step_{size.name}", f"    {command()}\n\n{step_table(size, steps)}", data)


if __name__ == "__main__":
    main()
