"""All GPU checks in one offline command: exactness of the fast paths, speed of the machine, time of a training step.

    python benchmarks/gpu.py                                # one GPU of 80 GB, under 8 minutes
    python benchmarks/gpu.py --size tiny --device cpu       # the same code on a laptop

Needs torch, transformers, lightning and this package. Weights are random, so nothing is downloaded. ``--peer`` also
measures TRL's steps, alternating with ours; it needs TRL.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import torch
from steps.exactness import CHECKS
from steps.floors import Model, floor_table, floors, rates
from steps.measure import PHASES, command, machine, markdown, median, seconds, step_table, take_turns, write
from steps.ours import module_of, prompt_tokens
from steps.sizes import SIZES

PAPER_STEPS = 200
"""Training steps of the published recipe, which ran on eight GPUs."""


def main() -> None:
    """Run the checks and measurements, print the tables and write them to the output folder."""
    parser = argparse.ArgumentParser(description="Check exactness and measure speed on a GPU.")
    parser.add_argument("--size", default="3b", choices=SIZES)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--repeats", type=int, default=3, help="measured steps (default: 3)")
    parser.add_argument("--peer", action="store_true", help="measure TRL's steps, too")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: no GPU found; --device cpu --size tiny runs the same code without one")
    start = time.perf_counter()
    size = SIZES[options.size]
    exact = [["", "largest difference", "allowed", ""], ["---", "--:", "--:", "---"]]
    worst = {}
    for name, check in CHECKS.items():
        worst[name], allowed = check(device)
        exact.append([name, f"{worst[name]:.1e}", f"{allowed:.0e}", "ok" if worst[name] <= allowed else "**wrong**"])
    rate = rates(device, size.dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the steps run in other processes, which need the memory
    sides = {"ours": ("steps.ours", size)} | ({"TRL": ("steps.peer", size)} if options.peer else {})
    steps = take_turns(sides, options.repeats, 1, options.out / "logs")
    module, _ = module_of(size)
    bounds = floors(size, Model.of(module.backbone, prompt_tokens(module, size)), rate)
    phases = {phase: median(steps["ours"], lambda step, p=phase: step["phases"][p]) for phase in PHASES}
    text = "\n\n".join(
        [
            f"    {command()}",
            markdown(exact),
            f"A copy moves {rate['copy_gb_s']:.0f} GB/s, a {size.dtype} matrix product runs at "
            f"{rate['product_gflop_s'] / 1000:.2f} TFLOP/s.",
            step_table(size, steps),
            markdown(floor_table(phases, bounds)),
            f"{PAPER_STEPS} steps would take {PAPER_STEPS * median(steps['ours'], seconds) / 60:.0f} minutes; "
            f"this benchmark took {(time.perf_counter() - start) / 60:.1f} minutes.",
        ]
    )
    data = {"command": command(), "machine": machine(), "size": asdict(size), "rates": rate, "exactness": worst}
    write(options.out, f"gpu_{size.name}_{device.type}", text, data | {"steps": steps, "floors": bounds})
    if any("wrong" in row[-1] for row in exact):
        raise SystemExit("error: a result differs by more than allowed, see the first table")


if __name__ == "__main__":
    main()
