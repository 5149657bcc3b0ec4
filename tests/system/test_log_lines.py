"""Tests of log lines: text of strangers cannot reach the terminal unescaped, nor forge a line."""

from __future__ import annotations

import io
import logging
import logging.config
import os
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from grit_lightning.app import config
from grit_lightning.system.log_lines import PrintableFormatter, run_log
from grit_lightning.system.paths import conf_dir


def record(name: str, message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "file.py", 1, message, values, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("grit_lightning.data.checks", r"WARNING: left out: a\x1b[2J\nERROR: b"),
        ("lightning.pytorch", "WARNING: left out: a\\x1b[2J\nERROR: b"),
    ],
)
def test_control_characters_are_escaped_and_own_records_keep_one_line(name: str, expected: str) -> None:
    formatter = PrintableFormatter("%(levelname)s: %(message)s")
    assert formatter.format(record(name, "left out: %s", "a\x1b[2J\nERROR: b")) == expected


def test_the_command_line_logs_with_this_formatter() -> None:
    config.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("config", return_hydra_config=True)
    settings = OmegaConf.to_container(composed.hydra.job_logging, resolve=True)
    stream = io.StringIO()
    settings["handlers"]["console"]["stream"] = stream
    settings |= {"loggers": {"grit_lightning.x": {"handlers": ["console"], "propagate": False}}, "root": {}}
    logging.config.dictConfig(settings)
    logging.getLogger("grit_lightning.x").warning("%s", "\x1b]0;title\x07")
    assert stream.getvalue() == "WARNING: \\x1b]0;title\\x07\n"


def test_records_are_appended_in_utf_8_whatever_the_locale(tmp_path):
    program = (
        "import logging, pathlib, sys; from grit_lightning.system.log_lines import run_log\n"
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
