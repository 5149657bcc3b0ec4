"""Control of the measured processes: each side runs in a process that does one step on request, so sides take turns."""

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
    """Connection of a side to the measuring process, used inside the side: waits for its turn and reports.

    It redirects stdout to stderr, so that output of the libraries does not mix with the reports.
    """

    def __init__(self) -> None:
        self._reports = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._base = 0.0

    def imported(self) -> None:
        """Take the current memory as the baseline that the libraries need, and reset the peak."""
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc_pid_clear_refs(5)
        self._base = _status("VmRSS")

    def wait(self) -> None:
        """Wait until it is this side's turn; end the process when the measuring process has closed the connection."""
        if not sys.stdin.readline():
            os._exit(0)
        self._processor_seconds = time.process_time()

    def report(self, seconds: float, phases: dict[str, float], peak_gib: float | None = None) -> None:
        """Send the measurements of a step to the measuring process.

        Args:
            seconds: duration of the step.
            phases: seconds of each phase.
            peak_gib: peak memory in GiB; ``None`` for the peak resident set of the process minus the baseline.
        """
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
    """A side as the measuring process controls it: starts the side's process and requests its steps.

    Args:
        module: module to run with ``python -m``; its process holds a :class:`Gate`.
        size: size of the steps, passed to the module as JSON.
        log: file for the output of the process.
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
        """Request one step and return its report, see :meth:`Gate.report`.

        Raises:
            SystemExit: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("step\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: a measured process ended early, see {self.log}:\n{self.log.read_text()[-2000:]}")
        report: dict[str, Any] = json.loads(line)
        return report

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
