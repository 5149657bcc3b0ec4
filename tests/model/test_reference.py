"""Tests of the frozen reference model."""

from __future__ import annotations

import pytest
import torch

from grit_lightning.model.reference import Reference


def test_offloaded_weights_return_to_where_they_were_even_after_an_error() -> None:
    layer = torch.nn.Linear(2, 3)
    reference = Reference(layer)
    reference.offload()
    homes = [value.data_ptr() for value in layer.parameters()]
    with pytest.raises(RuntimeError), reference.on(torch.device("cpu")):
        layer.weight.data = torch.zeros(3, 2)
        raise RuntimeError
    assert [value.data_ptr() for value in layer.parameters()] == homes


def test_the_reference_stays_in_eval_mode_and_has_no_gradient() -> None:
    reference = Reference(torch.nn.Linear(2, 3))
    assert not reference.train(True).training
    assert not any(value.requires_grad for value in reference.parameters())
