"""Tests of log lines: text of strangers cannot reach the terminal unescaped, nor forge a line."""

from __future__ import annotations

import io
import logging
import logging.config

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from grit_lightning.app import config
from grit_lightning.system.log_lines import PrintableFormatter
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
