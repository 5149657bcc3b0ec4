import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from grit_lightning.training.peak_memory import peak_memory_gib, peak_rss_gib


def test_peak_rss_grows_by_what_is_touched_and_does_not_fall():
    # A process of its own: here the peak may have been reached long before, and would not grow.
    program = (
        "from grit_lightning.training.peak_memory import peak_rss_gib as peak\n"
        "before = peak(); block = bytearray(b'x') * 2**28; during = peak(); del block\n"
        "print(before, during, peak())"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    before, during, after = map(float, output.stdout.split())
    assert during - before == pytest.approx(0.25, abs=0.02)
    assert after == pytest.approx(during, abs=0.02)
    assert before < 0.2


def test_on_the_cpu_it_is_the_process_that_counts():
    assert peak_memory_gib(torch.device("cpu")) == pytest.approx(peak_rss_gib(), rel=0.01)


def test_on_a_gpu_it_is_the_tensors_that_count(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30 if device.index == 1 else 0)
    assert peak_memory_gib(torch.device("cuda", 1)) == 3.0


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("linux", 1024)])
def test_without_proc_it_is_getrusage_in_the_units_of_the_platform(monkeypatch, platform, unit):
    def refuse(self):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(sys, "platform", platform)
    usage = type("Usage", (), {"ru_maxrss": 3 * 2**30 // unit})
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert peak_rss_gib() == 3.0
