"""Tests of replayed functions: a plain call on the CPU, a recorded CUDA graph on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from grit_lightning.rollout.cuda_graphs import Replayed


def test_without_cuda_the_function_is_called_directly() -> None:
    calls: list[Tensor] = []

    def double(value: Tensor) -> Tensor:
        calls.append(value)
        return 2 * value

    replayed = Replayed(double)
    assert [replayed(torch.tensor(value)).item() for value in (1, 2, 3)] == [2, 4, 6]
    assert len(calls) == 3  # no warm-up, no recording
    assert replayed.again()(torch.tensor(4)).item() == 8


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_the_recording_is_replayed_with_new_arguments() -> None:
    weight = torch.randn(8, 8, device="cuda")
    replayed = Replayed(lambda value: value @ weight)
    for _ in range(3):
        value = torch.randn(4, 8, device="cuda")
        torch.testing.assert_close(replayed(value), value @ weight)
