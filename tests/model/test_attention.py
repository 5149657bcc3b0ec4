"""Tests of attention over packed rows, by parts and with a block mask, against attention with the whole mask."""

from __future__ import annotations

import json

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForImageTextToText

from grit_lightning.model.attention import NAMES, FlexLayout, PackedLayout, packed_layout, takes_layout
from grit_lightning.model.packing import PAD_SEGMENT, block_mask, pack, plan_rows
from grit_lightning.model.policy import Policy

# Prompts of 5 and 2; a completion of no input, as one of a single token has; padding in the second row.
PARTS = ((5, 3, 0, 4, 0), (2, 1, 6, 3))
HEADS, SIZE, SCALE = 4, 8, 0.3
UNFUSED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # as it is on a CPU


def segments() -> Tensor:
    rows = [
        [segment for segment, length in enumerate(parts[:-1]) for _ in range(length)] + [PAD_SEGMENT] * parts[-1]
        for parts in PARTS
    ]
    return torch.tensor(rows)


def tensors(key_heads: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(len(PARTS), heads, sum(PARTS[0]), SIZE) for heads in (HEADS, key_heads, key_heads)]
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("key_heads", [HEADS, 2, 1])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str)
def test_attention_by_parts_equals_attention_with_the_whole_mask(
    key_heads: int, dtype: torch.dtype, atol: float
) -> None:
    real = (segments() != PAD_SEGMENT)[:, None, :, None]
    ours, theirs = tensors(key_heads, dtype), tensors(key_heads, dtype)
    output = PackedLayout(PARTS).attend(0, *ours, SCALE)
    expected = scaled_dot_product_attention(
        *theirs, attn_mask=block_mask(segments()), scale=SCALE, enable_gqa=key_heads != HEADS
    )
    torch.testing.assert_close(output.where(real, 0.0), expected.where(real, 0.0), rtol=0, atol=atol)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=dtype).where(real, 0.0)
    for result in (output, expected):
        (result * upstream).sum().backward()
    for value, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value.grad, other.grad, rtol=0, atol=10 * atol)


@torch.no_grad()
@UNFUSED
@pytest.mark.parametrize("key_heads", [HEADS, 1])
def test_flex_attention_equals_attention_with_the_whole_mask(key_heads: int) -> None:
    real = (segments() != PAD_SEGMENT)[:, None, :, None]
    values = [value.detach() for value in tensors(key_heads, torch.float32)]
    output = FlexLayout(segments()).attend(0, *values, SCALE)
    expected = scaled_dot_product_attention(
        *values, attn_mask=block_mask(segments()), scale=SCALE, enable_gqa=key_heads != HEADS
    )
    torch.testing.assert_close(output.where(real, 0.0), expected.where(real, 0.0), rtol=0, atol=1e-5)


@torch.no_grad()
@UNFUSED
def test_each_attention_implementation_gives_the_same_logprobs(compose_config, prompts, make_group) -> None:
    groups = [make_group(prompts[0], [7, 1, 12], 0), make_group(prompts[1], [3, 8, 2], 1)]
    logprobs = []
    for choice, layout in {"auto": PackedLayout, "sdpa": None, "flex": FlexLayout}.items():
        backbone = instantiate(compose_config(f"model.attn_implementation={choice}").model)
        policy = Policy.load(backbone, temperature=1.0, logits_chunk=64)
        (rows,) = plan_rows(groups, 10_000, [False, False])
        policy.requires_grad_(False)
        batch = pack(rows, groups, backbone.pad_token_id)
        found = packed_layout(policy.model, batch.parts_B, batch.segments_B_S)
        assert takes_layout(policy.model)
        assert found is None if layout is None else isinstance(found, layout)
        logprobs.append(policy(batch).logprobs_T)
    for other in logprobs[1:]:
        torch.testing.assert_close(other, logprobs[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_a_layout_the_model_computes_what_sdpa_does(backbone, prompts) -> None:
    ours = backbone.load_model()
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa")
    ids = prompts[0].input_ids_S[None]
    is_image = (ids == backbone.image_token_id).int()
    first, second = (model(ids, mm_token_type_ids=is_image, **prompts[0].vision).logits for model in (ours, plain))
    assert torch.equal(first, second)


@pytest.mark.parametrize("choice", NAMES)
def test_a_saved_config_does_not_name_the_attention(compose_config, tmp_path, choice: str) -> None:
    backbone = instantiate(compose_config(f"model.attn_implementation={choice}").model)
    backbone.load_model().save_pretrained(tmp_path)
    assert "shared_prefix" not in (tmp_path / "config.json").read_text()
    assert "attn_implementation" not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.config.get_text_config()._attn_implementation == "sdpa"
