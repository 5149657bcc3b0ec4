"""Reading JSON Lines files that may be damaged: each line is an object, or a problem that names its file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(file:line, content)`` for each line that is not blank; lines are numbered from 1.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path)) from error


def parse_object(line: bytes | str, source: str) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Args:
        line: the line.
        source: its ``file:line``, for messages.

    Raises:
        TornLineError: the line is not JSON; a process may have been killed while it wrote.
        DataError: the line is JSON, but not an object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TornLineError(f"not valid JSON ({error}); is the line torn?", source) from error
    if not isinstance(record, dict):
        raise DataError("expected a JSON object", source)
    return record


class TornLineError(DataError):
    """A line that is not valid JSON."""
