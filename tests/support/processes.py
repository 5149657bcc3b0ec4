"""Processes of the command line: new ones, or forks of a process that has already imported the package.

A new process takes seconds to import torch, transformers and Lightning. A fork has its own working directory,
environment, arguments, output and exit status too, and takes a tenth of that time.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "TORCH", "PYTHON", "OMP_")
"""Prefixes of variables that libraries read when they are imported, so that a fork would not see a change."""


def start(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[Any]:
    """Start ``python -m grit_lightning`` in a new process with one thread and Python's default handler of Ctrl-C.

    The handler is set because background jobs of a shell ignore Ctrl-C, and their children inherit that.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "grit_lightning", *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | (env or {}),
        preexec_fn=_obey_ctrl_c,
        **more,
    )


def _obey_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class CliServer:
    """Runs each command in a fork of a process that has already imported the package."""

    def __init__(self) -> None:
        self._environment = self._read_at_import()
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_obey_ctrl_c,
        )

    def can_run(self, env: Mapping[str, str]) -> bool:
        """Tell whether a fork would see the current environment and ``env``, including variables read at import."""
        return self._read_at_import() == self._environment and not any(key.startswith(_READ_AT_IMPORT) for key in env)

    def run(self, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with the variables of ``env`` added to the environment."""
        with tempfile.TemporaryDirectory() as folder:
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            request = {
                "arguments": arguments,
                "cwd": str(cwd),
                "environment": os.environ | {"OMP_NUM_THREADS": "1"} | env,
                "stdout": str(stdout),
                "stderr": str(stderr),
            }
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            status = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(arguments, status, stdout.read_text(), stderr.read_text())

    def close(self) -> None:
        """End the server."""
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()

    @staticmethod
    def _read_at_import() -> dict[str, str]:
        return {key: value for key, value in os.environ.items() if key.startswith(_READ_AT_IMPORT)}


def serve() -> None:
    """Fork for each request on stdin, and answer with the exit status."""
    import lightning
    import peft
    import tensorboard.backend.event_processing.event_accumulator  # of the page at the end of a training
    import torch
    import transformers

    import grit_lightning.tasks.train  # noqa: F401

    del lightning, peft, tensorboard, torch, transformers
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(request: dict[str, Any]) -> None:
    """Do in the forked process what ``python -m grit_lightning`` does."""
    for path, descriptor in ((os.devnull, 0), (request["stdout"], 1), (request["stderr"], 2)):
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags), descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["cwd"]
    sys.argv = ["grit_lightning", *request["arguments"]]
    status = 0
    try:
        runpy.run_module("grit_lightning", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
