"""Tests of the lines about what takes long."""

from __future__ import annotations

import re
import sys
import time

import pytest

from grit_lightning.system.slow import announced, counted


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


@pytest.mark.parametrize(("terminal", "quiet", "line", "bar"), [
    (False, False, True, False), (True, False, False, True), (False, True, False, False), (True, True, False, False),
])  # fmt: skip
def test_a_count_is_a_bar_on_a_terminal_and_lines_elsewhere(
    capsys, caplog, monkeypatch, terminal: bool, quiet: bool, line: bool, bar: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with caplog.at_level("INFO"), counted("baking", 5, "cake", quiet=quiet) as count:
        count(3)
        time.sleep(2.2)
        count(1)
    assert ("baking: 3 of 5 cakes …" in caplog.messages) == line
    assert ("baking:  80%" in capsys.readouterr().err) == bar
