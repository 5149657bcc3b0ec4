"""The formatter of log records, named in ``conf/config.yaml``: no record carries control characters to the terminal."""

from __future__ import annotations

import logging

from grit_lightning.system.printable import printable, printable_lines

PACKAGE = __name__.partition(".")[0]


class PrintableFormatter(logging.Formatter):
    """Formats each record of this package on one line; records of libraries may have several."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the formatted message with control characters escaped."""
        text = super().formatMessage(record)
        return printable(text) if record.name.partition(".")[0] == PACKAGE else printable_lines(text)
