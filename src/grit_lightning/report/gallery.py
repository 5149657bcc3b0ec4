"""A gallery in Markdown: answers to held-out questions before and after training, by how they changed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.evaluation.completion_metrics import is_right
from grit_lightning.evaluation.metrics import summary
from grit_lightning.evaluation.predictions import read_predictions
from grit_lightning.report.choice import evenly_spaced, first_of_each
from grit_lightning.report.drawing import drawn, jpeg
from grit_lightning.runs.manifest import read_manifest
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.printable import printable

OF_EACH_KIND = 3
"""Questions shown of each kind of change, evenly spaced in the data."""

_LONGEST_SIDE = 320
_WIDTH = 118
_KINDS = {
    (False, True): "Became right",
    (True, False): "Became wrong",
    (False, False): "Stayed wrong",
    (True, True): "Stayed right",
}


def gallery(run: RunFolder, images: Path) -> tuple[str, dict[str, bytes]]:
    """Return a gallery in Markdown, and its pictures (JPEG) by file name.

    Args:
        run: a run with answers before and after training.
        images: path of the pictures' folder relative to the page.

    Raises:
        DataError: the run has no such answers, or an image cannot be read.
    """
    if not (run.before_file.is_file() and run.after_file.is_file()):
        raise DataError("holds no answers before and after training, of which a gallery is made", str(run.path))
    before, after = (first_of_each(read_predictions(file)[0]) for file in (run.before_file, run.after_file))
    both = [name for name in after if name in before]
    overrides = [one for one in read_manifest(run.manifest_file)["overrides"] if not one.startswith("out=")]
    command = " ".join(["python -m grit_lightning", *overrides])
    accuracy = [summary(list(found.values()))["overall"]["accuracy"] or 0.0 for found in (before, after)]
    introduction = (
        f"Answers to {len(both)} held-out questions before and after `{command}`: accuracy {accuracy[0]:.3f} before, "
        f"{accuracy[1]:.3f} after. Of each kind of change {OF_EACH_KIND} are shown, evenly spaced in the data, not "
        "chosen by hand. The boxes that the model wrote after training are pink, blue, orange, green, … in their "
        "order, invalid ones dotted; reference boxes are dashed."
    )
    lines = ["# Gallery", "", *textwrap.wrap(introduction, _WIDTH)]
    pictures: dict[str, bytes] = {}
    for kind, title in _KINDS.items():
        names = [name for name in both if (is_right(before[name]), is_right(after[name])) == kind]
        lines += ["", f"## {title}: {len(names)}"]
        for name in (names[index] for index in evenly_spaced(range(len(names)), OF_EACH_KIND)):
            file = f"{len(pictures) + 1:02d}.jpg"
            pictures[file] = jpeg(drawn(after[name], longest_side=_LONGEST_SIDE), quality=88)
            lines += [
                "",
                f"![The image with the boxes that the model wrote after training]({images.as_posix()}/{file})",
            ]
            lines += ["", *_block(before[name], after[name])]
    return "\n".join(lines) + "\n", pictures


def _block(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what was asked and answered as an indented block, in which a text of a stranger stays text."""
    said = {
        "question": f"{after['question']} (reference answer: {after['answer']})",
        "before": before["text"],
        "after": after["text"],
    }
    lines = [
        line
        for name, value in said.items()
        for line in textwrap.wrap(f"{name:<9} {printable(value)}", _WIDTH - 4, subsequent_indent=" " * 10)
    ]
    return [f"    {line}" for line in lines]
