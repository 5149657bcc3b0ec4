"""Tests of the attention that models are loaded with, against plain transformers."""

from __future__ import annotations

import json

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForImageTextToText

from grit_lightning.model import attention
from grit_lightning.model.attention import choice_of
from support.attention import loop


@torch.no_grad()
def test_without_a_layout_the_model_computes_what_sdpa_does(backbone, prompts) -> None:
    ours = backbone.load_model()
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa")
    ids = prompts[0].input_ids_S[None]
    is_image = (ids == backbone.image_token_id).int()
    first, second = (model(ids, mm_token_type_ids=is_image, **prompts[0].vision).logits for model in (ours, plain))
    assert torch.equal(first, second)


def test_a_plain_model_is_refused(backbone) -> None:
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa")
    with pytest.raises(ValueError, match="the model's attention is sdpa, expected one of shared_prompt,"):
        choice_of(plain)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of the vision tower's calls of sdpa."""
    seen: list[int] = []

    def spy(query: Tensor, *args, **kwargs) -> Tensor:
        seen.append(len(query))
        return scaled_dot_product_attention(query, *args, **kwargs)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", spy)
    return seen


def features(model, vision: dict[str, Tensor]) -> Tensor:
    """Return the image features of all images, shape (tokens, D)."""
    found = model.base_model.get_image_features(**vision, return_dict=True).pooler_output
    return found if isinstance(found, Tensor) else torch.cat(list(found))


@torch.no_grad()
@pytest.mark.parametrize(
    # Windows have 8 × 8 patches. Two of the four layers attend to the whole image.
    ("size", "windowed"),
    [((224, 224), [4]), ((196, 140), [1, 1, 1, 1])],
)
def test_windows_of_equal_size_are_one_call(backbone, make_prompt, calls, size, windowed) -> None:
    ours = backbone.load_model()
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa")
    vision = dict(make_prompt(size=size).vision)
    torch.testing.assert_close(features(ours, vision), features(plain, vision), rtol=0, atol=1e-6)
    assert calls == [*windowed, 1] * 2


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (196, 140)])
def test_all_windows_are_one_call_of_a_variable_length_kernel(backbone, make_prompt, monkeypatch, size) -> None:
    seen: list[bool] = []

    def counted(query: Tensor, *rest, causal: bool, **options) -> Tensor:
        seen.append(causal)
        return loop(query, *rest, causal=causal, **options)

    ours = backbone.load_model()
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa")
    monkeypatch.setattr(attention, "kernel", lambda *_: counted)
    vision = dict(make_prompt(size=size).vision)
    torch.testing.assert_close(features(ours, vision), features(plain, vision), rtol=0, atol=1e-5)
    assert seen == [False] * ours.config.vision_config.depth


@pytest.mark.parametrize("choice", ["auto"])
def test_a_saved_config_does_not_name_the_attention(compose_config, tmp_path, choice: str) -> None:
    backbone = instantiate(compose_config(f"model.attn_implementation={choice}").model)
    backbone.load_model().save_pretrained(tmp_path)
    saved = json.dumps(json.loads((tmp_path / "config.json").read_text()))
    assert not any(name in saved for name in ("shared_prompt", "windows_flash", "attn_implementation"))
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.config.get_text_config()._attn_implementation == "sdpa"
