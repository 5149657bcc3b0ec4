"""The estimate of memory: real sizes on the meta device, and each part against a direct count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.training.memory import Setup, StepSize, estimate
from support.released import INTERNVL3_2B, MAKERS, QWEN2_5_VL_3B, TINY, full_size

GIB = 2**30
STEP = StepSize(
    prompts=32, generations=4, prompt_tokens=400, image_tokens=256, new_tokens=1000, max_sequences=128,
    max_tokens_per_pass=8192, logits_chunk=1024,
)  # fmt: skip
SETUP = Setup(reference=True, optimizer_values=2.0, bf16=True, gradient_checkpointing=True, shards=1)


@pytest.fixture
def real(compose_config, tmp_path: Path):
    """A backbone of a real size, its weights never made."""

    def make(family: str, *overrides: str):
        sizes = {"qwen2_5_vl": QWEN2_5_VL_3B, "internvl": INTERNVL3_2B}[family]
        tiny = TINY if family == "qwen2_5_vl" else MAKERS[family](tmp_path / "tiny")
        folder = full_size(tmp_path / "real", source=tiny, **sizes)
        options = ("model=pretrained", f"model.checkpoint={folder}", "model.random_weights_seed=null")
        return instantiate(compose_config(*options, *overrides).model)

    return make


@pytest.mark.parametrize(("family", "billions"), [("qwen2_5_vl", 3.75), ("internvl", 2.09)])
def test_real_sizes(real, family: str, billions: float) -> None:
    model = real(family).outline()
    count = sum(value.numel() for value in model.parameters())
    assert count / 1e9 == pytest.approx(billions, abs=0.005)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    parts = estimate(model, STEP, SETUP)
    assert parts["weights"] == parts["reference"] == parts["gradients"] == 4 * count
    assert parts["optimizer"] == 8 * count
    assert parts["peak"] > 20 * count


def test_with_adapters_only_they_have_gradients_and_no_second_model_is_held(real) -> None:
    model = real("qwen2_5_vl", "peft=lora", "model.dtype=bfloat16").outline()
    total = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert 0.01 < trained / total < 0.05
    parts = estimate(model, STEP, dataclasses.replace(SETUP, reference=False))
    assert parts["weights"] == 2 * (total - trained) + 4 * trained
    assert (parts["reference"], parts["gradients"], parts["optimizer"]) == (0, 4 * trained, 8 * trained)


def test_sharding_divides_what_is_held_but_not_activations(backbone) -> None:
    one, four = (estimate(backbone.outline(), STEP, dataclasses.replace(SETUP, shards=shards)) for shards in (1, 4))
    for name in ("weights", "reference", "gradients", "optimizer"):
        assert four[name] == one[name] / 4
    for name in ("activations", "logits", "cache of keys and values"):
        assert four[name] == one[name]


@torch.no_grad()
def test_the_cache_is_that_of_a_rollout(backbone, prompts) -> None:
    model = backbone.load_model()
    step = dataclasses.replace(STEP, prompts=1, generations=2, prompt_tokens=prompts[0].num_tokens, new_tokens=0)
    cache = model.model(
        input_ids=prompts[0].input_ids_S[None].repeat(2, 1),
        position_ids=prompts[0].position_ids_A_S[:, None].repeat(1, 2, 1),
        use_cache=True,
        **{key: torch.cat([value, value]) for key, value in prompts[0].vision.items()},
    ).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    layers = len(cache.layers)
    fp32 = dataclasses.replace(SETUP, bf16=False)
    assert estimate(model, step, fp32)["cache of keys and values"] == held * (layers + 1) / layers


def test_rows_and_sequences_are_those_of_a_step() -> None:
    assert STEP.row_tokens == 4400
    assert STEP.rows == 1
    assert STEP.sequences == 128
    assert dataclasses.replace(STEP, max_tokens_per_pass=100).row_tokens == 1400
    assert dataclasses.replace(STEP, max_sequences=10).sequences == 8
