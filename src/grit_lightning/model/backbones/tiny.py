"""Generator of the bundled checkpoint folder ``assets/tiny``: config and tokenizer of a Qwen2.5-VL of 3 M parameters.

    python -m grit_lightning.model.backbones.tiny FOLDER

The tokenizer is built like Qwen's (byte-level BPE, one token per digit, the same special tokens and chat template) and
trained on texts of the shapes world and of the prompts. No weights are written; :mod:`.random_weights` can draw them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import OmegaConf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig

from grit_lightning.data.shapes.completions import corpus
from grit_lightning.data.shapes.lessons import INSTRUCTIONS
from grit_lightning.system.paths import conf_dir

VOCABULARY_SIZE = 512

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens of Qwen2.5-VL, in its order."""

WHOLE_TOKENS = ("<think>", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>", "bbox_2d")
"""Ordinary (not special) strings encoded as one token each, as later Qwen tokenizers do with the first two."""

# Qwen2's pre-tokenizer: contractions, words, single digits, punctuation, line breaks, white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Chat template that renders user turns of images and text exactly as the released checkpoints' template does."""

PREPROCESSOR_CONFIG = """{
  "image_processor_type": "Qwen2VLImageProcessor",
  "image_mean": [0.48145466, 0.4578275, 0.40821073],
  "image_std": [0.26862954, 0.26130258, 0.27577711],
  "merge_size": 2,
  "patch_size": 14,
  "size": {"longest_edge": 100352, "shortest_edge": 3136},
  "temporal_patch_size": 2
}
"""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of :data:`VOCABULARY_SIZE` entries. Equal texts give an equal tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(SPECIAL_TOKENS) - len(WHOLE_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    whole = re.compile("|".join(map(re.escape, WHOLE_TOKENS)))
    tokenizer.train_from_iterator((part for text in texts for part in whole.split(text)), trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in WHOLE_TOKENS])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return a config of about 3 M parameters; head dimension 32 and divisible sizes suit fused attention kernels."""
    token = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_heads": 4,
            "out_hidden_size": 192,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        architectures=["Qwen2_5_VLForConditionalGeneration"],
    )


def _instructions() -> list[str]:
    """Return the instruction texts of the chat template, GRIT's prompt and the lessons."""
    prompt = OmegaConf.load(conf_dir() / "prompt" / "grounded.yaml")
    return ["You are a helpful assistant.", OmegaConf.select(prompt, "template"), *INSTRUCTIONS]


def write(folder: Path) -> None:
    """Write tokenizer, config and image processor config to ``folder``."""
    tokenizer = train_tokenizer([*corpus(seed=0, count=4000), *_instructions() * 1000])
    tokenizer.save_pretrained(folder)
    tiny_config(tokenizer).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(PREPROCESSOR_CONFIG)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the tiny Qwen2.5-VL's tokenizer and config to a folder.")
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
