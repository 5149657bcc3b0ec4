"""Storage of a run's completions and scores as JSON Lines, one file per step, for re-scoring, reports and notebooks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.system.files import write_atomic
from grit_lightning.system.jsonl import parse_object, read_lines

_STEP_FILE = re.compile(r"step_(\d+)\.jsonl")


class RolloutStore:
    """The stored rollouts of a run.

    Args:
        folder: folder of the rollout files, ``RunFolder.rollouts``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, step: int, step_records: Sequence[dict[str, Any]]) -> Path:
        """Write the file of a step and return its path. Call it on one process, with the records of all ranks.

        An existing file of the step, for example from before a resume, is replaced. Lines are sorted by slot and
        completion index, so that the file does not depend on the number of processes.
        """
        ordered = sorted(step_records, key=lambda record: (record["slot"], record["completion_index"]))
        # json.dumps escapes everything beyond ASCII: some readers would split lines at Unicode line separators.
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in ordered]
        path = self.file(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(lines))
        return path

    def read(self, step: int) -> list[dict[str, Any]]:
        """Return the records of a step.

        Raises:
            DataError: the step has no file, or a line of it is not a JSON object.
        """
        path = self.file(step)
        if not path.is_file():
            raise DataError(f"no rollouts of step {step}.", str(self.folder))
        return [parse_object(line, source) for source, line in read_lines(path)]

    def steps(self) -> list[int]:
        """Return the stored steps in ascending order."""
        if not self.folder.is_dir():
            return []
        matches = (_STEP_FILE.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def file(self, step: int) -> Path:
        """Return the path of a step's file, which need not exist."""
        return self.folder / f"step_{step:06d}.jsonl"
