"""Entry point of the command line: compose the config with Hydra, run its task, report a user error in one line."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.utils import get_method
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from grit_lightning.app import config
from grit_lightning.app.overrides import is_sweep
from grit_lightning.errors import ConfigError, UserError
from grit_lightning.system.paths import conf_dir

_USER_ERRORS = (UserError, HydraException, OmegaConfBaseException)


def main() -> None:
    """Run the task of the composed config.

    After a user error, print one line to stderr and exit with status 1; ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs errors that it raises, too
    # Hides log lines about retries (huggingface_hub), missing kernels (bitsandbytes) and single requests (httpx).
    for name in ("huggingface_hub", "bitsandbytes", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    config.register()

    def run(cfg: DictConfig) -> None:
        if not traceback_wanted:
            del os.environ["HYDRA_FULL_ERROR"]  # so that processes started by the task do not inherit it
        try:
            options = {key: value for key, value in cfg.task.items() if not str(key).startswith("_")}
            _task(cfg.task._target_)(cfg, **options)
        except _USER_ERRORS as error:
            # Exit here, because Hydra would print a line of its own before the message. In a sweep that line is useful:
            # it names the job that failed.
            if traceback_wanted or is_sweep():
                raise
            sys.exit(f"error: {one_line(error)}")
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"
            _close_judges()

    try:
        # With this variable Hydra raises errors instead of printing several lines and exiting.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(run)()
    except _USER_ERRORS as error:
        if traceback_wanted:
            raise
        sys.exit(f"error: {one_line(error)}")
    except BrokenPipeError:  # the reader of the output, such as head, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _close_judges() -> None:
    """Close the connections of judges, if a judge was asked."""
    if (service := sys.modules.get("grit_lightning.judge.chat.service")) is not None:
        service.close_all()


def _task(name: str) -> Callable[..., object]:
    try:
        return get_method(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"task._target_ is {name!r}, which cannot be imported: {error}") from error


def one_line(error: BaseException) -> str:
    """Return an error's message on one line: that of the ``UserError`` that caused it, if there is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return " ".join(str(cause).split())
        cause = cause.__cause__
    first = str(error).split("\n", 1)[0]
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no default: give {error.full_key}=VALUE"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {first}"
    return _hydra_line(error, first) if isinstance(error, HydraException) else " ".join(str(error).split())


def _hydra_line(error: HydraException, first: str) -> str:
    """Reword Hydra's errors about the command line or about building an object."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option} is unknown: the options of {group} are {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as an override: {first}"
    if match := re.match(r"Could not override '(.+?)'", first):
        key = match[1]
        return f"{key} is unknown: --cfg job lists the keys; to add a key that your own code reads, write +{key}=…"
    first = first.removeprefix("Error merging override ").removesuffix(":")
    reason = str(error.__cause__).split("\n", 1)[0] if error.__cause__ else ""
    if reason.endswith("is not a ListConfig, list or tuple."):
        key, _, value = first.partition("=")
        reason = f"expected a list, '{key}=[{value}]'"
    return ": ".join(filter(None, (first, reason)))
