"""Tests of the weights of a policy as a checkpoint would hold them, against a merge with PEFT."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.model.adapters import merge
from grit_lightning.model.whole_weights import whole_weights


def test_weights_without_adapters_are_the_parameters_themselves(backbone) -> None:
    model = backbone.load_model()
    found = dict(whole_weights(model))
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all(found[name].data_ptr() == value.data_ptr() for name, value in model.named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_merged_as_an_export_merges_them(compose_config, dtype: str) -> None:
    model = instantiate(compose_config("peft=lora", "peft.rank=4", f"model.dtype={dtype}").model).load_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value += 0.05 * torch.randn(value.shape, generator=generator)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    found = {name: value.clone() for name, value in whole_weights(model)}
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())  # nothing has changed
    merge(model)
    merged = dict(model.named_parameters())
    assert found.keys() == merged.keys()
    changed = [name for name in found if f"{name.removesuffix('weight')}lora_A.default.weight" in before]
    assert changed
    for name, value in found.items():
        assert value.dtype == merged[name].dtype
        # bfloat16: PEFT rounds the update before it adds it
        torch.testing.assert_close(
            value, merged[name], rtol=0 if dtype == "float32" else 0.01, atol=1e-6 if dtype == "float32" else 1e-3
        )
