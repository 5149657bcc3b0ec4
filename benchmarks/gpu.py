"""All GPU checks in one offline command: exactness of the fast paths, speed of the device, time of the recipe's steps.

    python benchmarks/gpu.py                                      # one GPU of 80 GB, under 9 minutes
    python benchmarks/gpu.py --parts peer                         # TRL's steps beside ours, in turn
    python benchmarks/gpu.py --size 3b --shrunk --device cpu      # the same code on a laptop, as the tests run it

Nothing is downloaded: weights are random. Beside torch, transformers and lightning it needs this package's sources and

    pip install hydra-core omegaconf tenacity aiolimiter httpx
    pip install --no-deps peft accelerate psutil

which are pure Python but for psutil. ``peer`` also needs TRL. Parts are independent: one that fails does not end
the others, and all results so far are written after each.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from steps.exactness import CHECKS
from steps.floors import floor_table, floors, model_size, rates_sentence
from steps.lengths import mean_length
from steps.measure import PHASES, command, machine, markdown, median, peak, seconds, step_table, take_turns, write
from steps.ours import module_of, prompt_tokens
from steps.sizes import SIZES, Size, shrunk

from grit_lightning.training.step_time import Rates, measure

PAPER_STEPS = 200
"""Training steps of the published recipe, which ran on eight GPUs."""

CHUNKS = ((512, 8192), (1024, 8192), (2048, 8192), (1024, 4096), (1024, 16384))
"""Values of ``module.logits_chunk`` and ``module.max_tokens_per_pass`` that are compared."""


@dataclass
class Benchmark:
    """What the parts share, and their results.

    Attributes:
        size: size of the steps.
        device: device to measure.
        repeats: measured steps.
        out: folder of the results.
        texts: Markdown by part.
        data: measurements by part.
        failed: first sentence of what went wrong, by part.
    """

    size: Size
    device: torch.device
    repeats: int
    out: Path
    texts: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rates: Rates | None = None

    def run(self, parts: Mapping[str, Callable[[Benchmark], tuple[str, Any]]], budget: float) -> None:
        """Run parts one after the other, and write all results after each.

        Args:
            parts: functions that return Markdown and measurements, by name.
            budget: seconds after which no further part is begun.
        """
        start = time.perf_counter()
        for name, part in parts.items():
            elapsed = time.perf_counter() - start
            if elapsed > budget:
                self.failed[name] = f"not begun, because {elapsed:.0f} s have passed"
            else:
                print(f"[{elapsed:.0f} s] {name}", flush=True)
                try:
                    self.texts[name], self.data[name] = part(self)
                    print(self.texts[name], flush=True)
                except (Exception, SystemExit) as error:
                    traceback.print_exc()
                    self.failed[name] = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['-'])[-1]}"
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()  # steps run in other processes, which need the memory
            self.write()

    def write(self) -> None:
        """Write all results so far."""
        failures = [f"**{name} failed**: {reason}" for name, reason in self.failed.items()]
        text = "\n\n".join([f"    {command()}", *(f"### {n}\n\n{t}" for n, t in self.texts.items()), *failures])
        about = {"command": command(), "machine": machine(), "size": asdict(self.size), "failed": self.failed}
        write(self.out, f"gpu_{self.size.name}_{self.device.type}", text, about | self.data, show=False)

    def measured_rates(self) -> Rates:
        """Return the rates of the device, measured once."""
        if self.rates is None:
            self.rates = measure(self.device, getattr(torch, self.size.dtype))
        return self.rates


def exactness(benchmark: Benchmark) -> tuple[str, Any]:
    """Compare fast paths with slow ones; a check that fails does not end the others."""
    rows, found = [["", "largest difference", "allowed", ""], ["---", "--:", "--:", "---"]], {}
    for name, check in CHECKS.items():
        try:
            value, allowed = check(benchmark.device)
        except Exception as error:
            traceback.print_exc()
            benchmark.failed[name] = f"{type(error).__name__}: {error}"
            rows.append([name, "", "", "**failed**"])
            continue
        found[name] = value
        rows.append([name, f"{value:.1e}", f"{allowed:.1e}", "ok" if value <= allowed else "**wrong**"])
        if not value <= allowed:
            benchmark.failed[name] = f"{value:.1e} is more than {allowed:.1e}"
    return markdown(rows), found


def steps(benchmark: Benchmark) -> tuple[str, Any]:
    """Take steps of the recipe: phases beside their floors, peak memory, minutes of a training."""
    size = benchmark.size
    found = take_turns({"ours": ("steps.ours", size)}, benchmark.repeats, 2, benchmark.out / "logs")
    module, _ = module_of(size)
    rates = benchmark.measured_rates()
    bounds = floors(size, model_size(module.backbone), prompt_tokens(module, size), rates)
    phases = {phase: median(found["ours"], lambda step, p=phase: step["phases"][p]) for phase in PHASES}
    minutes = PAPER_STEPS * median(found["ours"], seconds) / 60
    text = [
        f"Completions have {mean_length(size):.0f} tokens in the mean, at most {size.new_tokens}.",
        step_table(size, found),
        rates_sentence(rates, size.dtype),
        markdown(floor_table(phases, bounds)),
        f"{PAPER_STEPS} steps would take {minutes:.0f} minutes.",
    ]
    return "\n\n".join(text), {"steps": found, "floors": bounds, "rates": rates._asdict()}


def chunks(benchmark: Benchmark) -> tuple[str, Any]:
    """Compare sizes of chunks and passes, one step each after one to warm up."""
    rows = [["logits_chunk", "max_tokens_per_pass", "update, s", "step, s", "peak, GiB"], ["--:"] * 5]
    found = {}
    for chunk, tokens in CHUNKS:
        size = replace(benchmark.size, logits_chunk=chunk, pass_tokens=tokens, prompts=min(8, benchmark.size.prompts))
        side = f"{chunk}/{tokens}"
        found |= take_turns({side: ("steps.ours", size)}, 1, 1, benchmark.out / "logs")
        update = median(found[side], lambda step: step["phases"]["update"])
        cells = [f"{update:.2f}", f"{median(found[side], seconds):.2f}", f"{peak(found[side]):.2f}"]
        rows.append([f"{chunk:,}", f"{tokens:,}", *cells])
    return markdown(rows), found


def peer(benchmark: Benchmark) -> tuple[str, Any]:
    """Take our steps and TRL's in turn, with completions of equal lengths."""
    size = replace(benchmark.size, varied=False, new_tokens=min(300, benchmark.size.new_tokens))
    sides = {"ours": ("steps.ours", size), "TRL": ("steps.peer", size)}
    found = take_turns(sides, benchmark.repeats, 1, benchmark.out / "logs")
    return f"All completions have {size.new_tokens} tokens.\n\n{step_table(size, found)}", found


PARTS: Mapping[str, Callable[[Benchmark], tuple[str, Any]]] = {
    "exactness": exactness, "steps": steps, "chunks": chunks, "peer": peer,
}  # fmt: skip


def main() -> None:
    """Run the parts, print their tables and write them to the output folder."""
    parser = argparse.ArgumentParser(description="Check exactness and measure speed on a GPU.")
    parser.add_argument("--size", default="3b", choices=SIZES)
    parser.add_argument("--shrunk", action="store_true", help="the size's options with the bundled model, for a test")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--parts", nargs="+", default=["exactness", "steps", "chunks"], choices=PARTS)
    parser.add_argument("--repeats", type=int, default=5, help="measured steps (default: 5)")
    parser.add_argument("--seconds", type=float, default=480, help="begin no part after this time (default: 480)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: no GPU found; --device cpu --size 3b --shrunk runs the same code without one")
    size = shrunk(SIZES[options.size]) if options.shrunk else SIZES[options.size]
    benchmark = Benchmark(size, device, options.repeats, options.out)
    benchmark.run({name: PARTS[name] for name in options.parts}, options.seconds)
    if benchmark.failed:
        for name, reason in benchmark.failed.items():
            print(f"error: {name}: {reason}", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
