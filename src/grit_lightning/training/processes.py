"""The processes that the first one starts: all end when one of them fails, with the reason of the first failure.

Lightning's own observer (2.6.6) kills the first process, too, which can then say nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from grit_lightning.system.stop import stop_signals

GRACE = 5.0
"""Seconds after the failure of a process in which the first one may notice it by itself and end in an orderly way."""

_PERIOD = 0.5
_PARENT = "GRIT_LIGHTNING_PARENT"
"""Environment variable with the process id of the process that starts the others."""


def starts_processes(launcher: Any) -> bool:
    """Tell whether a launcher of Lightning would start further processes, as torchrun or SLURM have not done so."""
    return hasattr(launcher, "_call_children_scripts") and not launcher.cluster_environment.creates_processes_externally


class Processes(Callback):
    """Watches over the processes that a launcher of Lightning starts for a run or an evaluation.

    Args:
        hint: what the user can do after a failure, such as ``continue with resume=RUN``.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self._children: list[subprocess.Popen[Any]] = []
        self._is_ending = threading.Event()
        self._parent: int | None = None

    def attach(self, launcher: Any) -> None:
        """Watch what ``launcher`` will start, instead of Lightning's observer; or, in a child, watch the parent."""
        if os.environ.get(_PARENT) == str(os.getppid()):
            self._parent = os.getppid()
            threading.Thread(target=self._watch_parent, daemon=True).start()
        if not hasattr(launcher, "_call_children_scripts"):  # one process, or processes started by torchrun or SLURM
            return
        start = launcher._call_children_scripts

        def start_and_watch() -> None:
            os.environ[_PARENT] = str(os.getpid())
            start()
            del os.environ[_PARENT]
            self._children = list(launcher.procs)
            launcher.procs = []  # so that Lightning's observer has nothing to watch
            threading.Thread(target=self._watch_children, daemon=True).start()

        launcher._call_children_scripts = start_and_watch
        launcher.kill = self._send

    def on_exception(self, *_: Any) -> None:
        """Note that this process is about to end by itself: it may still be writing a checkpoint."""
        self._is_ending.set()

    def end(self, error: BaseException | None) -> str | None:
        """End or await the other processes, when this one has done its work or failed.

        Args:
            error: the exception of this process; ``None`` if it has succeeded.

        Returns:
            A sentence about the process that failed first, if that is why this one failed; else ``None``.
        """
        self._is_ending.set()
        if error is None:
            for child in self._children:
                try:
                    child.wait(timeout=60)
                except subprocess.TimeoutExpired:  # all work is done
                    child.kill()
            return None
        reason = None
        if _is_of_another_process(error):
            reason = self._first_failure() or "another process of this run has ended"
            reason = f"{reason}; {self._hint}"
            if self._parent_has_ended():
                self._say_that_parent_has_ended()
        self._send(signal.SIGKILL)
        return reason

    def _first_failure(self) -> str | None:
        deadline = time.monotonic() + GRACE
        while (self._children or self._parent) and time.monotonic() < deadline:
            if (failed := self._failed()) or self._parent_has_ended():
                return failed
            time.sleep(0.1)
        return None

    def _failed(self) -> str | None:
        for rank, child in enumerate(self._children, start=1):
            if code := child.poll():
                return _sentence(rank, code)
        return None

    def _watch_children(self) -> None:
        while any(child.poll() is None for child in self._children) or self._failed():
            if (failed := self._failed()) is not None:
                # This process has failed in the same way, or was asked to stop, or notices by itself, or is stuck.
                if not self._is_ending.wait(GRACE) and stop_signals.received is None:
                    self._leave(failed)
                return
            time.sleep(_PERIOD)

    def _watch_parent(self) -> None:
        while not self._parent_has_ended():
            time.sleep(_PERIOD)
        if not self._is_ending.is_set():
            self._say_that_parent_has_ended()
            os._exit(1)

    def _parent_has_ended(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent

    def _say_that_parent_has_ended(self) -> None:
        if os.environ.get("LOCAL_RANK") == "1":  # one of the others does
            print(f"error: process 0 has ended; {self._hint}", file=sys.stderr, flush=True)

    def _leave(self, reason: str) -> None:
        """End this process, whose main thread may wait for ever for the process that has failed."""
        print(f"error: {reason}; {self._hint}", file=sys.stderr, flush=True)
        self._send(signal.SIGKILL)
        os._exit(1)

    def _send(self, signum: int) -> None:
        for child in self._children:
            child.send_signal(signum)  # which does nothing if the child has ended


def _sentence(rank: int, code: int) -> str:
    if code < 0:
        return f"process {rank} was killed ({signal.Signals(-code).name})"
    if code - 128 in list(signal.Signals):
        return f"process {rank} was stopped ({signal.Signals(code - 128).name})"
    return f"process {rank} has failed, with its reason above"


def _is_of_another_process(error: BaseException) -> bool:
    """Tell whether an exception says only that a collective operation failed, because another process has ended."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        word in text for word in ("gloo", "nccl", "connection closed by peer")
    )
