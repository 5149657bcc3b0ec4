"""Tests of the lines about what takes long."""

from __future__ import annotations

import re
import time

import pytest

from grit_lightning.system.slow import announced


def test_what_is_quick_is_not_mentioned(caplog) -> None:
    with caplog.at_level("INFO"), announced("loading"):
        pass
    assert caplog.messages == []


def test_what_takes_long_is_mentioned_again_and_again(caplog) -> None:
    with caplog.at_level("INFO"), announced("loading", after=0.02, every=0.05):
        time.sleep(0.3)
    assert caplog.messages[0] == "loading …"
    assert len(caplog.messages) >= 3
    assert all(re.fullmatch(r"loading … \d+ s", message) for message in caplog.messages[1:])


def test_an_error_ends_the_lines(caplog) -> None:
    with caplog.at_level("INFO"), pytest.raises(OSError, match="gone"), announced("loading", after=0.01, every=0.01):
        raise OSError("gone")
    told = len(caplog.messages)
    time.sleep(0.05)
    assert len(caplog.messages) == told
