"""Command line of the shapes world: ``python -m grit_lightning.data.shapes OUT`` writes a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.data.shapes.scenes import DIFFICULTIES, SPLITS
from grit_lightning.errors import UserError
from grit_lightning.system.printable import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the data set, print the paths of its JSONL files, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m grit_lightning.data.shapes",
        description="Write counting and spatial questions about drawn shapes, in the GRIT JSONL format.",
    )
    parser.add_argument("out", type=Path, help="folder to write to; files in it are never overwritten")
    parser.add_argument("--count", type=_count, default=10, help="number of samples of each kind (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="train",
        help="split of the scenes; heldout and train share no image (default: train)",
    )
    parser.add_argument(
        "--difficulty",
        choices=tuple(DIFFICULTIES),
        default="standard",
        help="difficulty of the questions: hard scenes have more and smaller shapes, early scenes are those of the "
        "bundled model's first lessons (default: standard)",
    )
    options = parser.parse_args(arguments)
    difficulty = DIFFICULTIES[options.difficulty]
    try:
        drawn = draw_dataset(count=options.count, seed=options.seed, split=options.split, difficulty=difficulty)
        files = drawn.write(options.out)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is not a number of samples; expected at least 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
