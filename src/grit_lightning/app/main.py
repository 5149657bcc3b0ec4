"""The command line: Hydra composes the config, the task it names runs, and a user's mistake is one line."""

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
    """Run the task of the composed config. Exit status 1 after an error; ``HYDRA_FULL_ERROR=1`` shows its traceback."""
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs the errors that it raises
    for name in ("huggingface_hub", "bitsandbytes", "httpx"):  # retries; which kernels it would rather have; requests
        logging.getLogger(name).setLevel(logging.ERROR)
    config.register()

    def run(cfg: DictConfig) -> None:
        if not traceback_wanted:
            del os.environ["HYDRA_FULL_ERROR"]  # processes that the task starts would take it for the user's wish
        try:
            options = {key: value for key, value in cfg.task.items() if not str(key).startswith("_")}
            _task(cfg.task._target_)(cfg, **options)
        except _USER_ERRORS as error:
            # Hydra would put a line of its own before the message. In a sweep it stays: it says which job failed.
            if traceback_wanted or is_sweep():
                raise
            sys.exit(f"error: {one_line(error)}")
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    try:
        # Hydra then passes errors on, instead of printing several lines and exiting.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(run)()
    except _USER_ERRORS as error:
        if traceback_wanted:
            raise
        sys.exit(f"error: {one_line(error)}")
    except BrokenPipeError:  # the reader of --help, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _task(name: str) -> Callable[..., object]:
    try:
        return get_method(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"task._target_ is {name!r}, which cannot be imported: {error}") from error


def one_line(error: BaseException) -> str:
    """An error's message without line breaks: the user error beneath what Hydra wraps around it, if there is one."""
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
    """What Hydra found wrong with the command line, or with building an object, in this application's words."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option} is unknown: the options of {group} are {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} cannot be read as an override: {first}"
    if match := re.match(r"Could not override '(.+?)'", first):
        key = match[1]
        return f"{key} is unknown: --help shows the keys there are; one that code of yours reads is added by +{key}=…"
    first = first.removeprefix("Error merging override ").removesuffix(":")
    reason = str(error.__cause__).split("\n", 1)[0] if error.__cause__ else ""
    if reason.endswith("is not a ListConfig, list or tuple."):
        key, _, value = first.partition("=")
        reason = f"expected a list, '{key}=[{value}]'"
    return ": ".join(filter(None, (first, reason)))
