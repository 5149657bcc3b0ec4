"""Reader of JSON Lines files that may be damaged; errors name the file and line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grit_lightning.errors import DataError
from grit_lightning.system.files import require_regular

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SHOWN = 60
"""Maximum number of characters with which a message shows a value."""


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(file:line, content)`` for each non-blank line; lines are numbered from 1.

    Raises:
        DataError: the file cannot be read, is no regular file, or is one JSON document instead of JSON Lines.
    """
    require_regular(path)
    try:
        with path.open("rb") as file:
            checked = False
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                if not checked and (document := whole_document(path, line)):
                    raise DataError(document, str(path))
                checked = True
                yield f"{path}:{number}", line
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", str(path)) from error


def whole_document(path: Path, first_line: bytes) -> str | None:
    """Describe the problem of a file that is one JSON document, of which the first line is given.

    The whole file is read only if its first line is not a JSON object. Return ``None`` for JSON Lines.
    """
    return None if _is_object(first_line) else one_document(path.read_bytes())


def one_document(content: bytes) -> str | None:
    """Describe the problem of a file that is one JSON array, or one object over several lines; ``None`` for others.

    A document of which the first line is a lone bracket may be cut off.
    """
    content = content.removeprefix(BYTE_ORDER_MARK).strip()
    first, _, more = content.partition(b"\n")
    first = first.strip()
    if first[:1] not in (b"[", b"{") or _is_object(first):
        return None
    if not (more and first in (b"[", b"{")):
        try:
            loads(content)
        except (ValueError, RecursionError):
            return None
    kind = "array" if first[:1] == b"[" else "object over several lines"
    return f"the file is one JSON {kind}; expected JSON Lines, one JSON object per line"


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(loads(line), dict)
    except (ValueError, RecursionError):
        return False


def loads(text: bytes | str) -> Any:
    """Parse JSON like ``json.loads``, but read an integer of more digits than Python converts (4300) as infinite."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # such an integer
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def is_finite(number: float) -> bool:
    """Tell whether a number is finite, also as a float: neither NaN, infinite nor an integer such as 10**400."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def is_storable(value: object) -> bool:
    """Tell whether a parsed value can be written again: its numbers are finite, and it is not nested too deeply."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def kind_of(value: object) -> str:
    """Return the type of a parsed value in words."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {str: "a string", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def shown(value: object) -> str:
    """Return a parsed value as JSON, shortened so that a message stays one readable line."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


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
        record = loads(line)
    except (ValueError, RecursionError) as error:
        raise TornLineError(f"not valid JSON ({error}); is the line cut off?", source) from error
    if not isinstance(record, dict):
        raise DataError("expected a JSON object", source)
    return record


class TornLineError(DataError):
    """Raised for a line that is not valid JSON and may therefore be cut off."""
