"""A side is a process that does one step each time it is told to, so that sides can take turns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from steps.sizes import Size


class Gate:
    """Of a side: waits for its turn and reports. Whatever the libraries print goes to stderr."""

    def __init__(self) -> None:
        self._reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._base = 0.0

    def imported(self) -> None:
        """What is held by now belongs to the libraries."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (proc_pid_clear_refs(5))
        self._base = _status("VmRSS")

    def wait(self) -> None:
        """Until it is this side's turn; ends the process when there is none."""
        if not sys.stdin.readline():
            os._exit(0)
        self._processor_seconds = time.process_time()

    def report(self, seconds: float, phases: dict[str, float], peak_gib: float | None = None) -> None:
        """Tell what a step took. Without ``peak_gib``: the process's peak resident set, less the libraries."""
        peak = _status("VmHWM") - self._base if peak_gib is None else peak_gib
        busy = time.process_time() - self._processor_seconds
        report = {"seconds": seconds, "processor_seconds": busy, "phases": phases, "peak_gib": peak}
        self._reports.write(json.dumps(report) + "\n")
        self._reports.flush()


def _status(key: str) -> float:
    found = re.search(rf"^{key}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 2**20


class Side:
    """A side as the one who measures sees it.

    Args:
        module: run with ``python -m``, given a size; a :class:`Gate` is at its other end.
        size: what it does.
        log: where what it prints goes.
    """

    def __init__(self, module: str, size: Size, log: Path) -> None:
        folder = str(Path(__file__).parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])}
        self.log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, size.to_json()], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log.open("w"), text=True, env=environment,
        )  # fmt: skip

    def step(self) -> dict[str, Any]:
        """One step's report."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: a side ended, see {self.log}:\n{self.log.read_text()[-2000:]}")
        report: dict[str, Any] = json.loads(line)
        return report

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
