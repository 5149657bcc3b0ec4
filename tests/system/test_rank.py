"""Tests of the detection of the first process from the variables of launchers."""

from __future__ import annotations

import pytest

from grit_lightning.system.rank import is_first_process


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, True),  # no launcher
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),  # torchrun
        ({"RANK": "1", "LOCAL_RANK": "1"}, False),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # first of the second node
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "4", "LOCAL_RANK": "0", "NODE_RANK": "0"}, False),
        ({"RANK": "0", "SLURM_PROCID": "2"}, True),  # torchrun inside a SLURM job: RANK decides
        ({"LOCAL_RANK": "0"}, True),  # Lightning's own launcher
        ({"LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
    ],
    ids=str,
)
def test_the_first_process_is_the_one_of_global_rank_0(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is expected
