"""Tests of locks between processes."""

import os
import subprocess
import sys
import threading

import pytest

from grit_lightning.errors import ConfigError
from grit_lightning.system.locks import held


def test_a_second_holder_of_a_lock_is_refused_and_the_lock_file_removed_afterwards(tmp_path):
    lock = tmp_path / ".lock"
    with held(lock, busy="wait for the other process"):
        assert lock.exists()
        with (
            pytest.raises(
                ConfigError, match=rf"^wait for the other process \(process {os.getpid()} on .+ since 2.+\)$"
            ),
            held(lock, busy="wait for the other process"),
        ):
            pytest.fail("both hold the lock")
        assert lock.exists(), "the refused holder does not remove the lock file"
    assert not lock.exists()
    with held(lock, busy="busy"):
        pass


def test_the_lock_file_is_removed_after_an_exception_too(tmp_path):
    with pytest.raises(KeyboardInterrupt), held(tmp_path / ".lock", busy="busy"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with held(tmp_path / ".lock", busy="busy"):
        pass


def test_a_lock_is_refused_to_another_process(tmp_path):
    program = (
        "import sys; from pathlib import Path; from grit_lightning.system.locks import held\n"
        "with held(Path(sys.argv[1]), busy='busy here'): print('held')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / ".lock")]
    with held(tmp_path / ".lock", busy="busy"):
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert f"ConfigError: busy here (process {os.getpid()} on " in refused.stderr.splitlines()[-1]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "held\n"


def test_without_a_busy_message_the_second_holder_waits(tmp_path):
    entered, leave, order = threading.Event(), threading.Event(), []

    def first():
        with held(tmp_path / ".lock"):
            entered.set()
            assert leave.wait(timeout=30)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(timeout=30)
    threading.Timer(0.2, leave.set).start()
    with held(tmp_path / ".lock"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
