"""Tests of converted InternVL checkpoints against an independent implementation of the released model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLForConditionalGeneration,
)

from grit_lightning.model.conversion.internvl import convert
from support import original_internvl as original

Values = dict[str, Any]
Change = Callable[[Values], None]


def vision(**fields: object) -> Change:
    return lambda values: values["vision_config"].update(fields)


def text(**fields: object) -> Change:
    return lambda values: values["llm_config"].update(fields)


def top(**fields: object) -> Change:
    return lambda values: values.update(fields)


def nothing(values: Values) -> None:
    """Change nothing: the config as released."""


def stored(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def make(folder: Path, change: Change = nothing, shards: int = 1, dtype: torch.dtype = torch.float32) -> Path:
    values = original.config()
    change(values)
    return original.write(folder, values, original.random_weights(values, dtype), shards)


def inputs(folder: Path, tiles: int) -> tuple[Tensor, Tensor]:
    """Return random pixels, shape (tiles, 3, 56, 56), and the ids of a sequence with their placeholders."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(tiles, 3, 56, 56, generator=generator)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return pixels, torch.tensor(tokenizer(original.conversation("How many red circles?", tiles * 4))["input_ids"])


@torch.no_grad()
def native_logits(folder: Path, pixels: Tensor, ids: Tensor) -> Tensor:
    model, info = InternVLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values()), "every weight has its place"
    return model(input_ids=ids[None], pixel_values=pixels).logits[0]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(
    "change",
    [
        nothing,
        text(tie_word_embeddings=True),
        vision(norm_type="rms_norm", qk_normalization=True, qkv_bias=False),  # the 6B tower of the large models
        vision(layer_norm_eps=0.1),
        top(select_layer=-2),
        text(max_position_embeddings=16),  # shorter than the sequence
        text(rope_scaling={"factor": 3.0, "type": "dynamic"}, max_position_embeddings=16),  # as older ones spell it
    ],
    ids=["released", "tied", "6B tower", "epsilon", "layer before the last", "long", "long, old spelling"],
)
def test_logits_are_those_of_the_original_architecture(tmp_path: Path, change: Change, shards: int) -> None:
    source = make(tmp_path / "original", change, shards)
    convert(source, tmp_path / "native")
    values = json.loads((source / "config.json").read_text())
    pixels, ids = inputs(tmp_path / "native", tiles=2)
    found = native_logits(tmp_path / "native", pixels, ids)
    expected = original.logits(values, stored(source), pixels, ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.3, "the tolerance is small beside the values"
    other = original.logits(values, stored(source), pixels.flip(0), ids)
    assert (other - expected)[-1].abs().max() > 0.01, "the image matters"


def test_every_weight_matters_to_the_logits(tmp_path: Path) -> None:
    values = original.config()
    weights = original.random_weights(values)
    convert(original.write(tmp_path / "original", values, weights), tmp_path / "native")
    pixels, ids = inputs(tmp_path / "native", tiles=1)
    expected = original.logits(values, weights, pixels, ids)
    for name, value in weights.items():
        changed = original.logits(values, weights | {name: value.flip(-1)}, pixels, ids)
        assert (changed - expected).abs().max() > 1e-3, name


@pytest.mark.parametrize("shards", [1, 3])
def test_weights_are_copied_bit_by_bit(tmp_path: Path, shards: int) -> None:
    source = make(tmp_path / "original", shards=shards, dtype=torch.bfloat16)
    convert(source, tmp_path / "native")
    before, after = stored(source), stored(tmp_path / "native")
    assert sum(value.numel() for value in before.values()) == sum(value.numel() for value in after.values())
    fused = before["vision_model.encoder.layers.1.attn.qkv.weight"]
    parts = [after[f"vision_tower.encoder.layer.1.attention.{part}_proj.weight"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), fused)
    assert after["multi_modal_projector.linear_2.bias"].dtype == torch.bfloat16
    assert torch.equal(after["multi_modal_projector.linear_2.bias"], before["mlp1.3.bias"])
    for name in before.keys() & after.keys():  # of the language model
        assert torch.equal(before[name], after[name])


def test_files_and_names_are_those_that_transformers_saves(tmp_path: Path) -> None:
    convert(make(tmp_path / "original"), tmp_path / "native")
    InternVLForConditionalGeneration.from_pretrained(tmp_path / "native").save_pretrained(tmp_path / "saved")
    assert stored(tmp_path / "native").keys() == stored(tmp_path / "saved").keys()
    assert sorted(path.name for path in (tmp_path / "native").iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
        "video_preprocessor_config.json",
    ]  # fmt: skip


def test_the_index_names_every_tensor_where_it_is(tmp_path: Path) -> None:
    convert(make(tmp_path / "original", shards=3), tmp_path / "native")
    index = json.loads((tmp_path / "native" / "model.safetensors.index.json").read_text())
    files = [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in (tmp_path / "native").glob("*.safetensors")) == files
    for file in files:
        held = load_file(tmp_path / "native" / file)
        assert held.keys() == {name for name, place in index["weight_map"].items() if place == file}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in stored(tmp_path / "native").values())


def test_the_native_config_holds_the_original_values(tmp_path: Path) -> None:
    convert(make(tmp_path / "original"), tmp_path / "native")
    config = json.loads((tmp_path / "native" / "config.json").read_text())
    assert config["architectures"] == ["InternVLForConditionalGeneration"]
    assert config["model_type"] == "internvl"
    assert config["image_token_id"] == original.token_id("<IMG_CONTEXT>")
    assert config["image_seq_length"] == 4
    assert config["dtype"] == "bfloat16"
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
    assert config["text_config"]["eos_token_id"] == original.token_id("<|im_end|>")
    rope = config["text_config"]["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("dynamic", 2.0, 1e6)
    assert config["vision_config"]["layer_scale_init_value"] == 0.1
    generation = json.loads((tmp_path / "native" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [original.token_id("<|im_end|>")]
    assert generation["pad_token_id"] == original.token_id("<|endoftext|>")


def test_omitted_config_fields_take_the_defaults_of_the_original_code(tmp_path: Path) -> None:
    values = original.config()
    vision(norm_type="rms_norm", qk_normalization=True, qkv_bias=False)(values)
    weights = original.random_weights(values)
    convert(original.write(tmp_path / "full", values, weights), tmp_path / "a")
    for name in ("norm_type", "qk_normalization", "qkv_bias", "layer_norm_eps", "hidden_act", "dropout"):
        del values["vision_config"][name]
    for name in ("force_image_size", "select_layer", "downsample_ratio", "system_message"):
        del values[name]
    convert(original.write(tmp_path / "short", values, weights), tmp_path / "b")
    for name in ("config.json", "processor_config.json", "chat_template.jinja"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()


def test_token_ids_are_unchanged_and_the_processor_finds_its_special_tokens(tmp_path: Path) -> None:
    convert(make(tmp_path / "original"), tmp_path / "native")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "native")
    assert len(tokenizer) == original.VOCABULARY, "no token without a row in the embedding"
    assert tokenizer.convert_tokens_to_ids(list(original.ADDED)) == [original.token_id(t) for t in original.ADDED]
    assert (tokenizer.start_image_token, tokenizer.end_image_token) == ("<img>", "</img>")
    assert tokenizer.context_image_token_id == original.token_id("<IMG_CONTEXT>")
    assert tokenizer.video_token_id == original.token_id("<|video_pad|>")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    spoken = "I see <ref>a circle</ref><box>[[1, 2, 30, 40]]</box> é 日本"
    assert tokenizer.decode(tokenizer(spoken)["input_ids"]) == spoken


def messages(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]


def test_a_prompt_has_the_ids_of_the_released_conversation_template(tmp_path: Path) -> None:
    convert(make(tmp_path / "original"), tmp_path / "native")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "native")
    question = "Is the red circle\nleft of the {blue} square?"
    prompt = tokenizer.apply_chat_template(messages(question), tokenize=False, add_generation_prompt=True)
    # What the native processor does with the placeholder.
    expanded = prompt.replace("<IMG_CONTEXT>", f"<img>{'<IMG_CONTEXT>' * 8}</img>")
    assert tokenizer(expanded)["input_ids"] == tokenizer(original.conversation(question, 8))["input_ids"]
    assert original.SYSTEM_MESSAGE in prompt


def test_a_given_system_message_replaces_the_one_of_the_checkpoint(tmp_path: Path) -> None:
    source = make(tmp_path / "original", top(system_message='Say "box".\n'))
    convert(source, tmp_path / "native")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "native")
    asked = messages("Why?")
    own = tokenizer.apply_chat_template(asked, tokenize=False)
    assert own == ('<|im_start|>system\nSay "box".\n<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT>\nWhy?<|im_end|>\n')
    given = tokenizer.apply_chat_template([{"role": "system", "content": "Hush."}, *asked], tokenize=False)
    assert given == own.replace('Say "box".\n', "Hush.")


def test_images_are_read_as_the_original_code_reads_them(tmp_path: Path) -> None:
    convert(make(tmp_path / "original"), tmp_path / "native")
    processor = GotOcr2ImageProcessorPil.from_pretrained(tmp_path / "native")
    image = Image.effect_noise((112, 56), 80).convert("RGB")
    pixels = processor(images=image, return_tensors="pt")["pixel_values"]
    # Two tiles and a thumbnail, each resized bicubically, scaled to [0, 1] and normalized by ImageNet's statistics.
    tiles = [image.crop((0, 0, 56, 56)), image.crop((56, 0, 112, 56)), image.resize((56, 56), Image.Resampling.BICUBIC)]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    levels = [torch.from_numpy(np.array(tile)).float() / 255 for tile in tiles]
    expected = torch.stack([((level - mean) / std).permute(2, 0, 1) for level in levels])
    assert pixels.shape == expected.shape
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)
    assert processor.max_patches == 12


def test_one_tile_where_the_original_has_no_dynamic_image_size(tmp_path: Path) -> None:
    convert(make(tmp_path / "original", top(dynamic_image_size=False)), tmp_path / "native")
    processor = GotOcr2ImageProcessorPil.from_pretrained(tmp_path / "native")
    assert len(processor(images=Image.new("RGB", (300, 56)), return_tensors="pt")["pixel_values"]) == 1


def test_transformers_loads_the_folder_and_generates(tmp_path: Path) -> None:
    convert(make(tmp_path / "original"), tmp_path / "native")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "native", dtype="auto")
    assert model.dtype == torch.bfloat16
    pixels, ids = inputs(tmp_path / "native", tiles=1)
    out = model.generate(input_ids=ids[None], pixel_values=pixels, max_new_tokens=3, do_sample=False)
    assert out[0, : len(ids)].tolist() == ids.tolist()
    assert 1 <= out.shape[1] - len(ids) <= 3
    with torch.no_grad():
        expected = model(input_ids=ids[None], pixel_values=pixels).logits[0, -1].argmax()
    assert out[0, len(ids)] == expected
