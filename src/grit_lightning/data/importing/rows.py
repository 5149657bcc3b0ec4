"""Rows of JSONL and parquet files, one after the other, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import require_regular
from grit_lightning.system.jsonl import BYTE_ORDER_MARK, parse_object, read_lines

_ROWS_AT_ONCE = 16
"""Parquet rows decoded at a time; each may hold images."""

Row = dict[str, Any]


def rows(file: Path) -> Iterator[tuple[str, Row | DataError]]:
    """Yield ``(file:row, row)`` for each row, counted from 1; a DataError in place of a line that is no JSON object.

    A file is parquet if its name ends in ``.parquet``, otherwise JSON Lines.

    Raises:
        ConfigError: the file is parquet, and pyarrow is not installed.
        DataError: the file cannot be read, or is damaged.
    """
    require_regular(file)
    if not file.is_file():
        raise DataError("there is no such file", str(file))
    yield from _parquet_rows(file) if file.suffix.lower() == ".parquet" else _json_rows(file)


def _json_rows(file: Path) -> Iterator[tuple[str, Row | DataError]]:
    for source, line in read_lines(file):
        try:
            yield source, parse_object(line.removeprefix(BYTE_ORDER_MARK), source)
        except DataError as error:
            yield source, error


def _parquet_rows(file: Path) -> Iterator[tuple[str, Row | DataError]]:
    try:
        import pyarrow  # type: ignore[import-not-found, import-untyped, unused-ignore]
        from pyarrow import parquet  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise ConfigError("parquet files need pyarrow: pip install 'grit-lightning[parquet]'") from error
    number = 0
    try:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}:{number}", row
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"is no whole parquet file, after row {number} ({reason})", str(file)) from error
