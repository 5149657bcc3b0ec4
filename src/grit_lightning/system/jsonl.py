"""Reader of JSON Lines files that may be damaged; errors name the file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(file:line, content)`` for each non-blank line; lines are numbered from 1.

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
        line: content of the line.
        source: ``file:line`` of the line, for messages.

    Raises:
        TornLineError: the line is not valid JSON, for example because a process was killed while writing it.
        DataError: the line is JSON, but not an object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TornLineError(f"not valid JSON ({error}); is the line cut off?", source) from error
    if not isinstance(record, dict):
        raise DataError("expected a JSON object", source)
    return record


class TornLineError(DataError):
    """Raised for a line that is not valid JSON and may therefore be cut off."""
