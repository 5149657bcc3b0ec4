"""Entry point of the command line: compose the config with Hydra, run its task, report a user error in one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import hydra
from hydra.errors import HydraException
from hydra.utils import get_method
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from grit_lightning.app import config
from grit_lightning.app.error_lines import one_line
from grit_lightning.app.overrides import is_sweep
from grit_lightning.errors import ConfigError, UserError
from grit_lightning.system.paths import conf_dir

_USER_ERRORS = (UserError, HydraException, OmegaConfBaseException)


def main() -> None:
    """Run the task of the composed config.

    After a user error, print one line to stderr and exit with status 1; ``HYDRA_FULL_ERROR=1`` shows the traceback.
    """
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    quiet_libraries()
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


def quiet_libraries() -> None:
    """Hide log lines of libraries about errors that they raise, too, about missing kernels, retries and requests.

    Addresses of requests may be signed, so that whoever reads them in a log could use them.
    """
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)
    for name in ("bitsandbytes", "huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # huggingface_hub sets its level again when it is imported, to the one named here.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def _close_judges() -> None:
    """Close the connections of judges, if a judge was asked."""
    if (service := sys.modules.get("grit_lightning.judge.chat.service")) is not None:
        service.close_all()


def _task(name: str) -> Callable[..., object]:
    try:
        return get_method(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"task._target_ is {name!r}, which cannot be imported: {error}") from error
