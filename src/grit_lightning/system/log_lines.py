"""Log records: printed without control characters, and appended to the log file of a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grit_lightning.system.printable import printable, printable_lines

PACKAGE = __name__.partition(".")[0]


class PrintableFormatter(logging.Formatter):
    """Formats each record of this package on one line; records of libraries may have several."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the formatted message with control characters escaped."""
        text = super().formatMessage(record)
        return printable(text) if record.name.partition(".")[0] == PACKAGE else printable_lines(text)


@contextmanager
def run_log(path: Path) -> Iterator[None]:
    """Append all log records to a UTF-8 file while the block runs.

    Raises:
        OSError: the file cannot be opened.
    """
    handler = _LogFile(path)
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log file that says once, in one line, that it cannot be written. Training goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Report the first failure; logging would print a traceback for each."""
        if not self._has_failed:
            self._has_failed = True
            print(f"WARNING: {self.baseFilename} cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
