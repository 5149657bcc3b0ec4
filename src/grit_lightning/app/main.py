"""Entry point of the command line: compose the config with Hydra, run its task, report a user error in one line."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections.abc import Callable

import hydra
from hydra.errors import HydraException
from hydra.utils import get_method
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from grit_lightning.app import config, sweeps
from grit_lightning.app.error_lines import one_line
from grit_lightning.app.former_names import todays_override
from grit_lightning.app.overrides import is_given, is_sweep, task_options
from grit_lightning.errors import ConfigError, UserError
from grit_lightning.system.disk import disk_refusal
from grit_lightning.system.paths import conf_dir
from grit_lightning.system.rank import is_first_process
from grit_lightning.system.stop import Stopped, stop_signals

_USER_ERRORS = (UserError, HydraException, OmegaConfBaseException)


def main() -> None:
    """Run the task of the composed config.

    After a user error, or if the disk refuses to be written, print one line to stderr and exit with status 1;
    ``HYDRA_FULL_ERROR=1`` shows the traceback. After SIGINT, SIGTERM or SIGHUP, exit with status 128 + signal.
    """
    stop_signals.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack a character
    threading.excepthook = _thread_failed
    quiet_libraries()
    sys.argv[1:] = map(_todays_argument, sys.argv[1:])
    config.register()
    try:
        _run_with_hydra()
    except BrokenPipeError:  # the reader of the output, such as head, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Stopped as stopped:
        print(f"stopped ({stopped})", file=sys.stderr)
        sys.exit(stopped.status)
    except SystemExit as end:
        if stop_signals.received is None:
            raise
        if isinstance(end.code, str):  # the task has said how to go on
            print(end.code, file=sys.stderr)
        sys.exit(128 + stop_signals.received)


def _run_with_hydra() -> None:
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"

    def run(cfg: DictConfig) -> float | None:
        if not traceback_wanted:
            del os.environ["HYDRA_FULL_ERROR"]  # so that processes started by the task do not inherit it
        try:
            _refuse_unused(cfg)
            return optimized(cfg, _task(cfg.task._target_)(cfg, **task_options(cfg)))
        except Exception as error:
            line = _line(error)
            if is_sweep():  # Hydra goes on with the next job
                sweeps.report_failure(line or f"{type(error).__name__}: {error}")
                raise
            if traceback_wanted or line is None:
                raise
            sys.exit(f"error: {line}")  # here, because Hydra would print a line of its own before the message
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"
            _close_judges()

    try:
        # With this variable Hydra raises errors instead of printing several lines and exiting.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(run)()
    except Exception as error:
        line = _line(error)
        if sweeps.report():
            sys.exit(1)
        if traceback_wanted or line is None:
            raise
        sys.exit(f"error: {line}")
    if sweeps.report():
        sys.exit(1)


_RUN_KEYS = {
    "run": "task=evaluate, export, report and score",
    "runs": "task=compare and report",
    "resume": "task=train and task=sft",
}
"""Keys that name runs, and the tasks that read them."""


def _refuse_unused(cfg: DictConfig) -> None:
    """Raise ConfigError if the command line names a run that the task would not read."""
    for key, tasks in _RUN_KEYS.items():
        if is_given(key) and key not in cfg.task.get("_takes_", _RUN_KEYS):
            raise ConfigError(f"{key} has no effect here: it is for {tasks}")


def optimized(cfg: DictConfig, result: object) -> float | None:
    """Return the metric ``optimized_metric`` of a training's result, which Hydra passes to a sweeper such as Optuna.

    Raises:
        ConfigError: the result has no such metric.
    """
    if cfg.optimized_metric is None:
        return None
    metrics = getattr(result, "metrics", {})
    if cfg.optimized_metric not in metrics:
        found = ", ".join(sorted(metrics)) or "none"
        raise ConfigError(f"optimized_metric is {cfg.optimized_metric!r}, expected a metric of this task: {found}")
    return float(metrics[cfg.optimized_metric])


def _line(error: Exception) -> str | None:
    """Return the one line that a user sees of an error; ``None`` for an error of this program."""
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, _USER_ERRORS) or (isinstance(error, ValueError) and _is_raised_by_hydra(error)):
        return one_line(error)
    return disk_refusal(error) if isinstance(error, OSError) else None


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Report an exception in a thread, but for a disk's refusal: TensorBoard raises it in the main thread, too."""
    if not (isinstance(failure.exc_value, OSError) and disk_refusal(failure.exc_value)):
        threading.__excepthook__(failure)


def _todays_argument(argument: str) -> str:
    """Return an argument with the current name of its key; say so, once for all processes."""
    now = todays_override(argument)
    if now != argument and is_first_process():
        print(f"WARNING: {argument} is now {now}", file=sys.stderr)
    return now


def quiet_libraries() -> None:
    """Hide log lines of libraries about errors that they raise, too, about missing kernels, retries and requests.

    Addresses of requests may be signed, so that whoever reads them in a log could use them.
    """
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)
    for name in ("bitsandbytes", "huggingface_hub", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # huggingface_hub sets its level again when it is imported, to the one named here.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def _is_raised_by_hydra(error: Exception) -> bool:
    """Tell whether Hydra itself raised an error, as about its flags or ``GROUP=null``, and not something it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("hydra.")


def _close_judges() -> None:
    """Close the connections of judges, if a judge was asked."""
    if (service := sys.modules.get("grit_lightning.judge.chat.service")) is not None:
        service.close_all()


def _task(name: str) -> Callable[..., object]:
    try:
        return get_method(name)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"task._target_ is {name!r}, which cannot be imported: {error}") from error
