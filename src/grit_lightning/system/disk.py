"""The reasons for which a disk refuses to be written, in one line."""

from __future__ import annotations

import errno
from pathlib import Path

_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ESTALE,
)


def disk_refusal(error: OSError, place: Path | None = None) -> str | None:
    """Describe an error of the file system in one line with the path; return ``None`` for any other error.

    Args:
        error: the error. One that occurs while an open file is written does not name the file.
        place: the file or folder to name in this case.
    """
    if error.errno not in _REFUSALS:
        return None
    where = error.filename if isinstance(error.filename, str) else place
    return f"{where} cannot be written: {error.strerror}" if where else f"a file cannot be written: {error.strerror}"
