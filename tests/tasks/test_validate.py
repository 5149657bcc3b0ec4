"""Tests of ``task=validate``: the estimates that it prints for a data set and a model."""

from __future__ import annotations

import re
from pathlib import Path

VERDICT = r"^estimated peak on each device: \d+\.\d GB; .+ has \d+\.\d GB: it fits$"
SECONDS = r"^a step with completions of 112 tokens takes more than (\S+) s \((.+)\), at"


def test_memory_by_part_and_the_least_seconds_of_a_step_are_printed(cli, tmp_path: Path) -> None:
    done = cli("task=validate", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = dict(re.findall(r"^(\w[\w ]+\w) +(\d+\.\d\d) GB$", done.stdout, re.MULTILINE))
    assert {"weights", "reference", "optimizer", "gradients", "cache of keys and values", "activations"} <= set(parts)
    assert re.search(VERDICT, done.stdout, re.MULTILINE)
    sentence = re.search(SECONDS, done.stdout, re.MULTILINE)
    assert sentence is not None
    phases = dict(phase.split() for phase in sentence[2].split(", "))
    assert list(phases) == ["rollout", "reference", "update"]


def test_a_model_that_does_not_fit_is_named(cli, tmp_path: Path) -> None:
    huge = ("rollout.num_generations=1000000", "rollout.max_sequences=100000000")
    done = cli("task=validate", "threads=1", *huge, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "it does not fit: see Out of memory in docs/troubleshooting.md" in done.stdout
