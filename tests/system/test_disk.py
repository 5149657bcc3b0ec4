"""Tests of the line about a disk that refuses to be written."""

import errno
import os
from pathlib import Path

import pytest

from grit_lightning.system.disk import disk_refusal


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_the_line_has_the_path_and_the_reason(number):
    reason = os.strerror(number)
    assert disk_refusal(OSError(number, reason, "/a/b")) == f"/a/b cannot be written: {reason}"
    assert disk_refusal(OSError(number, reason), Path("/run")) == f"/run cannot be written: {reason}"
    assert disk_refusal(OSError(number, reason)) == f"a file cannot be written: {reason}"


def test_other_errors_are_not_of_the_disk():
    assert disk_refusal(ConnectionRefusedError(errno.ECONNREFUSED, "refused")) is None
    assert disk_refusal(OSError("no number")) is None
