"""``task=validate``: check a data set for a model, and print what it holds and every problem."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig

from grit_lightning.backbones.base import Backbone
from grit_lightning.data.checks import FileCheck, describe
from grit_lightning.data.datamodule import GroundedQADataModule
from grit_lightning.tasks.prepare import prepare


def validate(cfg: DictConfig) -> list[FileCheck]:
    """Print a table of the data set, then its problems. Exits with status 1 if there are any.

    Raises:
        UserError: the config, the model's tokenizer or the data folder cannot be used at all.
    """
    values = prepare(cfg)
    backbone: Backbone = instantiate(values["model"])
    datamodule: GroundedQADataModule = instantiate(values["data"])
    datamodule.attach(backbone.encode, backbone.count_image_tokens)
    checks = datamodule.check()
    print(f"model {backbone.checkpoint}; ranges are minimum / median / maximum\n")
    print(f"{table([describe(check) for check in checks])}\n")
    problems = [problem for check in checks for problem in check.problems]
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}")
    if problems:
        sys.exit(1)
    return checks


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """A line for each row, under the names of the columns, which all rows share."""
    header = list(rows[0])
    lines = [header, *(list(row.values()) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * (sum(widths) + 2 * len(widths) - 2), *text[1:]])
