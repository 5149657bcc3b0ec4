"""Tests of the special tokens that are read from a checkpoint's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.model.backbones.special_tokens import TextEncoder, write_as_plain_text
from support.released import MAKERS
from support.samples import noise, several_images


def test_image_and_header_tokens_are_banned_and_end_tokens_are_not(backbone) -> None:
    names = {
        backbone.tokenizer.convert_ids_to_tokens(i) for i in backbone.banned_token_ids if i < len(backbone.tokenizer)
    }
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|endoftext|>", "<|im_start|>"} <= names
    assert "<|im_end|>" not in names
    assert backbone.eos_token_ids == (backbone.tokenizer.convert_tokens_to_ids("<|im_end|>"),)


QWEN3 = Path(__file__).parents[3].resolve().parent / "shared" / "data" / "tokenizers" / "qwen3"
"""The tokenizer of Qwen3, which Qwen3-VL shares; it lies outside the repository and may be missing."""

needs_qwen3 = pytest.mark.skipif(not QWEN3.is_dir(), reason=f"needs Qwen3's tokenizer in {QWEN3}")
THINK, END_OF_THINK = 151667, 151668
TEXT = "<|im_start|>user\nFirst <think> and\n<think>\n\n</think></think> then <|im_end|>\n<tool_call>"


@needs_qwen3
def test_the_real_tokenizer_splits_think_and_keeps_every_other_token() -> None:
    tokenizer = AutoTokenizer.from_pretrained(QWEN3)
    usual = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert {THINK, END_OF_THINK} <= set(usual)
    plain = TextEncoder(tokenizer, ("<think>", "</think>"))(TEXT)
    assert not {THINK, END_OF_THINK} & set(plain)
    assert tokenizer.decode(plain) == tokenizer.decode(usual) == TEXT  # rewards read both forms alike
    # By hand: what Qwen2.5, which lacks these tokens, makes of " <think>".
    assert tokenizer.convert_ids_to_tokens(TextEncoder(tokenizer, ("<think>",))("a <think> b")) == [
        "a", "Ġ<", "think", ">", "Ġb"
    ]  # fmt: skip
    assert TextEncoder(tokenizer, ())(TEXT) == usual
    other = "A sentence of 12 words, <|vision_start|><|image_pad|><|vision_end|> ünd\n\n  more."
    assert TextEncoder(tokenizer, ("<think>",))(other) == tokenizer(other, add_special_tokens=False)["input_ids"]


@needs_qwen3
def test_the_real_tokenizer_of_an_export_splits_think_wherever_it_is_loaded(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(QWEN3 / name, tmp_path)
    expected = TextEncoder(AutoTokenizer.from_pretrained(QWEN3), ("<think>", "</think>"))(TEXT)
    write_as_plain_text(tmp_path, ("<think>", "</think>"))
    for found in (AutoTokenizer.from_pretrained(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        assert found(TEXT, add_special_tokens=False)["input_ids"] == expected
        assert len(found) == THINK + 2
        assert found.decode(expected) == TEXT
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXT).ids == expected


def test_the_instruct_model_writes_think_as_text_and_the_thinking_model_as_its_token(tmp_path: Path) -> None:
    folder = MAKERS["qwen3_vl"](tmp_path / "model")
    instruct = load(folder)
    think = instruct.tokenizer.convert_tokens_to_ids("<think>")
    prompt = instruct.encode(several_images("Is it?", [(112, 112)]), noise([(112, 112)]))
    target = instruct.target("<think> a </think>", prompt)
    assert instruct.plain_tokens == ("<think>", "</think>")
    assert "<think>" in prompt.text
    assert think not in prompt.input_ids_S.tolist()
    assert think not in target.token_ids
    assert instruct.completion((think, *target.token_ids), "eos", prompt).text == "<think><think> a </think>"

    template = folder / "chat_template.jinja"
    thinks = instruct.tokenizer.chat_template + "{% if add_generation_prompt %}<think>{% endif %}</think>"
    template.write_text(thinks)
    thinking = load(folder)
    assert thinking.plain_tokens == ()
    assert think in thinking.encode(several_images("Is it?", [(112, 112)]), noise([(112, 112)])).input_ids_S.tolist()


def load(folder: Path) -> PretrainedBackbone:
    return PretrainedBackbone(
        checkpoint=str(folder), prompt="{question} Begin with <think>.", prefill="", min_pixels=3136, max_pixels=20000,
        max_tiles=3, peft=None, dtype="float32", attn_implementation="auto", gradient_checkpointing=False,
        random_weights_seed=None, freeze=(),
    )  # fmt: skip
