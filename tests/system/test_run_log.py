"""Tests of the log file of a run."""

import logging
import os
import subprocess
import sys

import pytest

from grit_lightning.system.run_log import run_log


def test_records_are_appended_in_utf_8_whatever_the_locale(tmp_path):
    program = (
        "import logging, pathlib, sys; from grit_lightning.system.run_log import run_log\n"
        "with run_log(pathlib.Path(sys.argv[1])):\n"
        "    logging.getLogger('test').warning('%s', chr(0xfc) + chr(0xd800))\n"
        "logging.getLogger('test').warning('afterwards')"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for _ in range(2):
        command = [sys.executable, "-c", program, str(tmp_path / "run.log")]
        subprocess.run(command, env=environment, check=True, timeout=60, stderr=subprocess.DEVNULL)
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("WARNING test: ü\\ud800")


def test_a_log_that_cannot_be_written_is_reported_once_in_one_line(tmp_path, capsys):
    with run_log(tmp_path / "run.log"):
        handler = logging.getLogger().handlers[-1]

        def fail(text):
            raise OSError(28, "No space left on device")

        handler.stream.write = fail
        for _ in range(3):
            logging.getLogger("grit_lightning.test").warning("hello")
    captured = capsys.readouterr().err
    assert captured.count("cannot be written") == 1
    assert f"WARNING: {tmp_path / 'run.log'} cannot be written: [Errno 28] No space left on device\n" in captured
    assert "Traceback" not in captured


def test_a_folder_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"), run_log(tmp_path / "nowhere" / "run.log"):
        pass
