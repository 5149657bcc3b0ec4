"""Start of vLLM inside this process, and its stop at a version or a machine that it cannot work with."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng

from grit_lightning.errors import EngineError
from grit_lightning.system.slow import announced

if TYPE_CHECKING:
    from vllm import LLM

log = logging.getLogger(__name__)

VERSIONS = ("0.32",)
"""Releases of vLLM whose interfaces this package was tested with; constraints-vllm.txt has what belongs to them."""

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process: weights are handed over in memory
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the second one has no logits processors
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound threads would stay bound when the policy trains
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def require_installed() -> None:
    """Check that vLLM is installed, without importing it.

    Raises:
        EngineError: it is not installed, or of a release that this package does not know.
    """
    for package in ("vllm", "vllm-cpu"):
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        if not found.startswith(tuple(f"{release}." for release in VERSIONS)):
            raise EngineError(f"{package} {found} is installed, expected {' or '.join(VERSIONS)}: see docs/vllm.md")
        return
    raise EngineError("vLLM is not installed: see docs/vllm.md for the environment that it needs")


def prepare(device: torch.device) -> None:
    """Set the environment variables that vLLM reads when it is imported and started. Those that are set stay.

    Args:
        device: the device of this process.
    """
    variables = dict(_ENVIRONMENT)
    if several_processes():  # vLLM's executor for processes that somebody else has started, as torchrun names them
        rank = torch.distributed.get_rank()
        variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank if device.index is None else device.index)}
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    logging.getLogger("vllm").setLevel(logging.ERROR)  # its first lines precede its own configuration


def several_processes() -> bool:
    """Tell whether several processes train, each with an engine of its own."""
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def start(arguments: Mapping[str, Any]) -> LLM:
    """Start vLLM's ``LLM`` in this process, after :func:`prepare`.

    It leaves random states and the number of threads as they were, which vLLM changes.

    Args:
        arguments: arguments of ``vllm.LLM``.

    Raises:
        EngineError: vLLM refuses the model, the arguments or the memory.
    """
    with announced("starting vLLM"), engine_errors("vLLM does not start"), quiet(), _own_threads(), isolate_rng():
        from vllm import LLM

        return LLM(**arguments)


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn whatever vLLM raises in the block into one sentence.

    Raises:
        EngineError: vLLM raised something.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # of vLLM and of all that it calls, which share no base class
        log.debug("%s", what, exc_info=True)
        raise EngineError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Return the first line of the exception that caused all others."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # pydantic's first lines only name the class and the field
    lines = [line for line in lines if not line.startswith("For further information")]
    return (lines[-1] if len(lines) > 1 and "validation error" in lines[0] else next(iter(lines), ""))[:400] or (
        type(error).__name__
    )


@contextmanager
def _own_threads() -> Iterator[None]:
    """Undo what vLLM does to the threads of torch: on a CPU it sets their number and then forbids to set it."""
    number, setter = torch.get_num_threads(), torch.set_num_threads
    try:
        yield
    finally:
        torch.set_num_threads = setter
        torch.set_num_threads(number)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings of vLLM and of what it imports, which concern no user of this application."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
