"""Every completion of a run, with its scores, as JSON lines: one file a step, for re-scoring, reports and notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grit_lightning.errors import DataError
from grit_lightning.system.files import write_atomic
from grit_lightning.system.jsonl import parse_object, read_lines

if TYPE_CHECKING:
    pass

_STEP_FILE = re.compile(r"step_(\d+)\.jsonl")


class RolloutStore:
    """The rollouts of a run, in a folder of their own.

    Args:
        folder: ``RunFolder.rollouts``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, step: int, step_records: Sequence[dict[str, Any]]) -> Path:
        """Write a step's records, of all ranks together, on one process; a resumed run writes a step's file anew.

        The lines are sorted by slot and completion, so that the file does not depend on the number of processes.
        """
        ordered = sorted(step_records, key=lambda record: (record["slot"], record["completion_index"]))
        # ASCII: some line separators of Unicode would otherwise break lines for some readers.
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in ordered]
        path = self.file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(lines))
        return path

    def read(self, step: int) -> list[dict[str, Any]]:
        """A step's records.

        Raises:
            DataError: there is no such step, or its file holds something else.
        """
        path = self.file(step)
        if not path.is_file():
            raise DataError(f"no rollouts of step {step}.", str(self.folder))
        return [parse_object(line, source) for source, line in read_lines(path)]

    def steps(self) -> list[int]:
        """The steps that are there, ascending."""
        if not self.folder.is_dir():
            return []
        matches = (_STEP_FILE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def file(self, step: int) -> Path:
        """Where a step's records are, or would be."""
        return self.folder / f"step_{step:06d}.jsonl"
