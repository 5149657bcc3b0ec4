"""Checkpoint files written atomically by a thread, while training goes on.

Lightning's ``TorchCheckpointIO`` (2.6.6) builds the archive in memory, writes it to the system's temporary folder and
*moves* it. If that folder is on another file system, as is usual on a cluster, the move is a copy onto the final name:
a process killed during the copy leaves a truncated file, and a small ``/tmp`` cannot hold the archive at all. Nothing
is fsynced. Its ``AsyncCheckpointIO`` wraps the same, and lets any number of unfinished writes pile up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch import Tensor
from torch.utils._pytree import tree_map_only

from grit_lightning.errors import CheckpointError
from grit_lightning.runs.checkpoint_files import read_checkpoint
from grit_lightning.system.files import replacing
from grit_lightning.system.slow import announced


class BackgroundCheckpointIO(TorchCheckpointIO):
    """Copies a checkpoint to the host's memory, and writes it in a thread: beside the old file, fsynced, renamed.

    There is at most one copy and one unfinished file: the next checkpoint waits for the one before. A process that ends
    waits, too.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._path = Path()
        self._writing = False
        self._then: list[Callable[[], None]] = []
        self._error: CheckpointError | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Begin to write ``checkpoint`` to the local file ``path``, and create its folder if it is missing.

        Raises:
            CheckpointError: the folder cannot be created, or the checkpoint before this one could not be written.
        """
        self.wait()
        self._path = path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_be_written(path, error) from error
        with announced(f"copying the state for {path.name}"):
            copy = on_host(checkpoint)
        self._writing = True
        self._thread = threading.Thread(target=self._write, args=(copy, path), name="checkpoint writer")
        self._thread.start()

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint of a run onto the CPU.

        Raises:
            CheckpointError: the file cannot be read without running code from it.
        """
        return read_checkpoint(Path(path), map_location="cpu")

    def then(self, action: Callable[[], None]) -> None:
        """Run an action once the file that is being written is whole; at once if none is. Not if writing fails."""
        with self._lock:
            if self._writing:
                self._then.append(action)
                return
        action()

    def wait(self) -> None:
        """Wait until the file that is being written is whole.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._thread is not None:
            with announced(f"writing {self._path}"):
                self._thread.join()
            self._thread = None
        self.require_success()

    def require_success(self) -> None:
        """Check, without waiting, that nothing has failed so far.

        Raises:
            CheckpointError: the last file could not be written. It is raised once.
        """
        error, self._error = self._error, None
        if error is not None:
            raise error

    def teardown(self) -> None:
        """Wait for the file that is being written, as Lightning calls it at the end."""
        self.wait()

    def _write(self, checkpoint: dict[str, Any], path: Path) -> None:
        try:
            with replacing(path) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
            while (action := self._next_action()) is not None:
                action()
        except Exception as error:  # torch raises RuntimeError about its archive after an OSError of the file
            self._error = _cannot_be_written(path, error)
        finally:
            with self._lock:
                self._writing = False
                self._then.clear()

    def _next_action(self) -> Callable[[], None] | None:
        with self._lock:
            if self._then:
                return self._then.pop(0)
            self._writing = False  # under the lock, so that no action is added that nobody runs
            return None


def on_host(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of nested values whose tensors are on the CPU and share memory where the original ones do."""
    copies: dict[int, torch.UntypedStorage] = {}

    def copy(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in copies:
            copies[storage._cdata] = storage.clone() if storage.device.type == "cpu" else storage.cpu()
        host = torch.empty(0, dtype=tensor.dtype)
        return host.set_(copies[storage._cdata], tensor.storage_offset(), tensor.size(), tensor.stride())

    copied: dict[str, Any] = tree_map_only(Tensor, copy, checkpoint)
    return copied


def _cannot_be_written(path: Path, error: BaseException) -> CheckpointError:
    """Return an error with the disk's reason: that of the first exception of the chain that has one."""
    first: BaseException | None = error
    while first is not None and not (isinstance(first, OSError) and first.strerror):
        first = first.__cause__ or first.__context__
    reason = first.strerror if isinstance(first, OSError) else str(error).split("\n", 1)[0]
    return CheckpointError(f"{path} cannot be written: {reason}.")
