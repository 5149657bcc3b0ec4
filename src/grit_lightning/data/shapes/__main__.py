"""``python -m grit_lightning.data.shapes OUT`` writes a data set of the shapes world."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.data.shapes.scenes import DIFFICULTIES, SPLITS
from grit_lightning.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the data set, prints its JSONL files, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m grit_lightning.data.shapes",
        description="Write counting and spatial questions about drawn shapes, in the GRIT JSONL format.",
    )
    parser.add_argument("out", type=Path, help="folder to write to; files in it are never overwritten")
    parser.add_argument("--count", type=_count, default=10, help="samples of each kind of question (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: 0)")
    parser.add_argument(
        "--split", choices=SPLITS, default="train", help="heldout scenes share no image with train (default: train)"
    )
    parser.add_argument(
        "--difficulty",
        choices=tuple(DIFFICULTIES),
        default="standard",
        help="of the questions: smaller and more shapes are hard; early is what the bundled model was first taught "
        "(default: standard)",
    )
    options = parser.parse_args(arguments)
    difficulty = DIFFICULTIES[options.difficulty]
    try:
        drawn = draw_dataset(count=options.count, seed=options.seed, split=options.split, difficulty=difficulty)
        files = drawn.write(options.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
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
