"""Everything to be known on a GPU, in one command without network: is it exact, how fast is the machine, and a step.

    python benchmarks/gpu.py                                # one GPU of 80 GB, under 8 minutes
    python benchmarks/gpu.py --size tiny --device cpu       # every line of it, on a laptop

Needs torch, transformers, lightning and this package; weights are random. With ``--peer``, and TRL installed, its steps
are taken in turn with ours.
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
"""Of the published recipe, on eight GPUs."""


def main() -> None:
    """Check, measure, print, write."""
    parser = argparse.ArgumentParser(description="Exactness, rates and a step on a GPU.")
    parser.add_argument("--size", default="3b", choices=SIZES)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--repeats", type=int, default=3, help="measured steps (3)")
    parser.add_argument("--peer", action="store_true", help="TRL's steps, too")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (runs/benchmarks)")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: there is no GPU; --device cpu --size tiny runs every line of this without one")
    start = time.perf_counter()
    size = SIZES[options.size]
    exact = [["", "largest difference", "allowed", ""], ["---", "--:", "--:", "---"]]
    worst = {}
    for name, check in CHECKS.items():
        worst[name], allowed = check(device)
        exact.append([name, f"{worst[name]:.1e}", f"{allowed:.0e}", "ok" if worst[name] <= allowed else "**wrong**"])
    rate = rates(device, size.dtype)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what follows is done by other processes
    sides = {"ours": ("steps.ours", size)} | ({"TRL": ("steps.peer", size)} if options.peer else {})
    steps = take_turns(sides, options.repeats, 1, options.out / "logs")
    module, _ = module_of(size)
    bounds = floors(size, Model.of(module.backbone, prompt_tokens(module, size)), rate)
    phases = {phase: median(steps["ours"], lambda step, p=phase: step["phases"][p]) for phase in PHASES}
    text = "\n\n".join(
        [
            f"    {command()}",
            markdown(exact),
            f"A copy moves {rate['copy_gb_s']:.0f} GB/s, a {size.dtype} matrix product does "
            f"{rate['product_gflop_s'] / 1000:.2f} TFLOP/s.",
            step_table(size, steps),
            markdown(floor_table(phases, bounds)),
            f"{PAPER_STEPS} steps take {PAPER_STEPS * median(steps['ours'], seconds) / 60:.0f} minutes; "
            f"this took {(time.perf_counter() - start) / 60:.1f}.",
        ]
    )
    data = {"command": command(), "machine": machine(), "size": asdict(size), "rates": rate, "exactness": worst}
    write(options.out, f"gpu_{size.name}_{device.type}", text, data | {"steps": steps, "floors": bounds})
    if any("wrong" in row[-1] for row in exact):
        raise SystemExit("error: not exact, see the first table")


if __name__ == "__main__":
    main()
