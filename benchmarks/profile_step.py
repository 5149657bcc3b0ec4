"""Breakdown of the time of one training step: phases beside their lower bounds, and the slowest operators.

    python benchmarks/profile_step.py small
    python benchmarks/profile_step.py tiny generations=16

Three steps run in one process: the first warms up, the phases of the second are timed, and the third runs under
torch's profiler, which slows it down.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from steps.floors import floor_table, floors, model_size, rates_sentence
from steps.lengths import forced
from steps.measure import command, machine, markdown, write
from steps.ours import module_of, prompt_tokens, stream, trainer_of
from steps.sizes import SIZES, Size
from torch.profiler import ProfilerActivity, profile

from grit_lightning.training.step_time import measure

SHOWN = 15
"""Number of operators in the table."""


class Profiled(L.Callback):
    """Records the phases of the second step and a profile of the third.

    Attributes:
        phases: seconds of each phase of the second step.
        operators: name, number of calls and microseconds of each operator of the third step, slowest first.
    """

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.operators: list[tuple[str, int, float]] = []
        self._profile: profile | None = None

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
        """Start the profiler at the third step."""
        if index == 2:
            on_gpu = [ProfilerActivity.CUDA] if module.device.type == "cuda" else []
            self._profile = profile(activities=[ProfilerActivity.CPU, *on_gpu])
            self._profile.__enter__()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """Record the phases after the second step, the profile after the third."""
        if index == 1:
            logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
            self.phases = {key: logged[f"time/{key}"] for key in ("rollout", "reference", "update", "step")}
        if self._profile is not None:
            self._profile.__exit__(None, None, None)
            on_gpu = module.device.type == "cuda"
            taken = [
                (event.key, event.count, event.self_device_time_total if on_gpu else event.self_cpu_time_total)
                for event in self._profile.key_averages()
            ]
            self.operators = sorted(taken, key=lambda one: -one[2])


def main() -> None:
    """Run the three steps, print the tables and write them to the output folder."""
    parser = argparse.ArgumentParser(description="Break down the time of one training step.")
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("changes", nargs="*", help="changes of the size, as KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    size: Size = SIZES[options.size].changed(options.changes)
    module, values = module_of(size)
    record = Profiled()
    with forced(size):
        trainer_of(size, values, record, max_steps=3).fit(module, stream(size))
    rates = measure(module.device, getattr(torch, size.dtype))
    bounds = floors(size, model_size(module.backbone), prompt_tokens(module, size), rates)
    total = sum(taken for *_, taken in record.operators)
    rows = [["operator", "calls", "share"], ["---", "--:", "--:"]]
    rows += [[name, str(count), f"{taken / total:.1%}"] for name, count, taken in record.operators[:SHOWN]]
    text = (
        f"    {command()}\n\n{torch.get_num_threads()} threads. {rates_sentence(rates, size.dtype)} "
        f"The step took {record.phases['step']:.2f} s.\n\n"
        f"{markdown(floor_table(record.phases, bounds))}\n\n{markdown(rows)}"
    )
    data = {
        "command": command(),
        "machine": machine(),
        "size": asdict(size),
        "rates": rates._asdict(),
        "floors": bounds,
    }
    write(options.out, f"profile_{size.name}", text, data | {"phases": record.phases, "operators": record.operators})


if __name__ == "__main__":
    main()
