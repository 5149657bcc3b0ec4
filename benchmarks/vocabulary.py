"""Peak memory of a training step with a small and a large vocabulary, beyond weights, gradient and optimizer state.

python benchmarks/vocabulary.py
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from steps.floors import model_size
from steps.measure import command, machine, markdown, peak, take_turns, write
from steps.ours import module_of
from steps.sizes import SIZES

VOCABULARIES = (1024, 151936)

COPIES = 5
"""Float32 numbers kept per parameter: weight, reference weight, gradient and two moments of AdamW."""


def main() -> None:
    """Measure both vocabularies, print the table and write it to the output folder."""
    parser = argparse.ArgumentParser(description="Measure peak memory with a small and a large vocabulary.")
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--repeats", type=int, default=1, help="measured steps, after one to warm up (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"), help="folder (default: runs/benchmarks)")
    options = parser.parse_args()
    sizes = {str(count): SIZES[options.size].changed([f"text.vocab_size={count}"]) for count in VOCABULARIES}
    rows = [["tokens of the vocabulary", "peak, GiB", "weights, gradient, optimizer, GiB", "beyond, GiB", ""]]
    rows.append(["--:"] * 5)
    steps, beyond = {}, []
    for name, size in sizes.items():  # one after the other, as memory is measured and not time
        steps |= take_turns({name: ("steps.ours", size)}, options.repeats, 1, options.out / "logs")
        held = COPIES * 4 * model_size(module_of(size)[0].backbone).parameters / 2**30
        beyond.append(peak(steps[name]) - held)
        more = f"{beyond[-1] / beyond[0] - 1:+.0%}" if len(beyond) > 1 else ""
        rows.append([f"{int(name):,}", f"{peak(steps[name]):.2f}", f"{held:.2f}", f"{beyond[-1]:.2f}", more])
    data = {"command": command(), "machine": machine(), "size": asdict(SIZES[options.size]), "steps": steps}
    write(options.out, f"vocabulary_{options.size}", f"    {command()}\n\n{markdown(rows)}", data)


if __name__ == "__main__":
    main()
