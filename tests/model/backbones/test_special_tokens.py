"""Tests of the special tokens that are read from a checkpoint's tokenizer."""

from __future__ import annotations


def test_image_and_header_tokens_are_banned_and_end_tokens_are_not(backbone) -> None:
    names = {
        backbone.tokenizer.convert_ids_to_tokens(i) for i in backbone.banned_token_ids if i < len(backbone.tokenizer)
    }
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|endoftext|>", "<|im_start|>"} <= names
    assert "<|im_end|>" not in names
    assert backbone.eos_token_ids == (backbone.tokenizer.convert_tokens_to_ids("<|im_end|>"),)
