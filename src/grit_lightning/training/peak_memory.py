"""Peak memory of a process or of its accelerator."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory since the process started where the model is, in GiB (2³⁰ bytes).

    On a CUDA device the largest sum of tensors that PyTorch held there at once; the allocator's reserve, which
    ``nvidia-smi`` shows, is larger. Elsewhere ``peak_rss_gib``.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return peak_rss_gib()


def peak_rss_gib() -> float:
    """The largest resident set of this process since it started, its children not counted, in GiB (2³⁰ bytes)."""
    try:
        # proc_pid_status(5). On Linux ru_maxrss would not do: it begins with the peak of the process that started this
        # one, so a worker would be charged for its launcher.
        found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # bytes on macOS, KiB elsewhere
