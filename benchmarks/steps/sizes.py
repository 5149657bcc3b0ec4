"""Sizes of the measured steps: a Qwen2.5-VL with random weights and its images, prompts and completions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

import grit_lightning
from grit_lightning.system.paths import cache_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Model and batch of a measured step, the same for all sides.

    Attributes:
        name: name of the size.
        text, vision: changes to the text and vision config of the bundled model. The tokenizer is extended to
            ``vocab_size`` tokens.
        pixels: side of the square images in pixels, a multiple of 28.
        prompt_words: filler words of the question.
        varied: whether prompts, images and completions have unequal lengths, as real ones do. TRL's side cannot.
        prompts: prompts per step.
        generations: G, completions per prompt.
        new_tokens: number of tokens of every completion, or of the longest if they are unequal.
        dtype: type of weights and computation.
        moments: type of AdamW's moments on our side; on TRL's they have the type of the weights.
        gradient_checkpointing: recompute activations in the backward pass, on all sides.
        pass_tokens: ``module.max_tokens_per_pass`` on our side.
        logits_chunk: ``module.logits_chunk`` on our side.
        peer_rows: completions per forward and backward pass on TRL's side.
    """

    name: str
    text: dict[str, Any]
    vision: dict[str, Any]
    pixels: int
    prompt_words: int
    varied: bool
    prompts: int
    generations: int
    new_tokens: int
    dtype: str
    moments: str
    gradient_checkpointing: bool
    pass_tokens: int
    logits_chunk: int
    peer_rows: int

    @property
    def completion_tokens(self) -> int:
        """Completion tokens per step if all have the same number."""
        return self.prompts * self.generations * self.new_tokens

    @property
    def image_tokens(self) -> int:
        """Image tokens per prompt."""
        return (self.pixels // 28) ** 2

    def to_json(self) -> str:
        """Return the size as JSON, for :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the size that :meth:`to_json` wrote, in this or another process."""
        return cls(**json.loads(text))

    def changed(self, changes: Sequence[str]) -> Size:
        """Return a copy with ``KEY=VALUE`` applied; ``text.KEY=VALUE`` and ``vision.KEY=VALUE`` change the model."""
        size = self
        for change in changes:
            key, _, value = change.partition("=")
            part, _, inner = key.partition(".")
            new = json.loads(value)
            size = replace(size, **{part: getattr(size, part) | {inner: new} if inner else new})
        return size


TINY = Size(
    name="tiny", text={}, vision={},
    pixels=224, prompt_words=20, varied=False, prompts=4, generations=8, new_tokens=112,
    dtype="float32", moments="float32", gradient_checkpointing=False, pass_tokens=8192, logits_chunk=64, peer_rows=32,
)  # fmt: skip

SMALL = Size(
    name="small",
    text={
        "vocab_size": 1024, "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]},
    },
    vision={
        "depth": 7, "hidden_size": 320, "intermediate_size": 864, "num_heads": 5, "out_hidden_size": 512,
        "fullatt_block_indexes": [3, 6],
    },
    pixels=448, prompt_words=10, varied=False, prompts=2, generations=8, new_tokens=128,
    dtype="float32", moments="float32", gradient_checkpointing=False, pass_tokens=1400, logits_chunk=64, peer_rows=8,
)  # fmt: skip

# The model has the sizes in config.json of Qwen/Qwen2.5-VL-3B-Instruct, the batch and all options are those of
# +experiment=qwen3b, and completions have up to 1,000 tokens.
THREE_B = Size(
    name="3b",
    text={
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    vision={
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
    pixels=448, prompt_words=60, varied=True, prompts=32, generations=4, new_tokens=1000,
    dtype="bfloat16", moments="bfloat16", gradient_checkpointing=True, pass_tokens=8192, logits_chunk=1024,
    peer_rows=16,
)  # fmt: skip

SIZES = {size.name: size for size in (TINY, SMALL, THREE_B)}


def shrunk(size: Size) -> Size:
    """Return a size with the bundled model and few short completions, and with the other options as they are."""
    return replace(
        size, name=f"{size.name}_shrunk", text={}, vision={}, pixels=112, prompt_words=5, prompts=3, generations=2,
        new_tokens=24, peer_rows=2,
    )  # fmt: skip


def checkpoint(size: Size) -> Path:
    """Return a checkpoint folder with config, tokenizer and image processor but no weights, written on first use.

    Vocabulary entries beyond the bundled tokenizer's are dummy words that occur in no text.
    """
    source = Path(grit_lightning.__file__).parent / "assets" / "tiny"
    config = json.loads((source / "config.json").read_text())
    config["text_config"] |= size.text
    config["text_config"].pop("layer_types")
    config["vision_config"] |= size.vision
    return write_checkpoint(source, config)


def write_checkpoint(source: Path, config: dict[str, Any]) -> Path:
    """Write a copy of the checkpoint ``source`` with another config, and return its folder in the cache.

    The vocabulary is extended to the config's ``vocab_size``. The folder is named by a hash of the config.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache_folder() / "benchmarks" / digest
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("chat_template.jinja", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_text((source / name).read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}  # keeps their ids
    known = set(vocabulary.values())
    vocabulary |= {f"word{i}": i for i in range(config["text_config"]["vocab_size"]) if i not in known}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def question(size: Size, index: int) -> str:
    """Return the question of prompt number ``index``; with ``varied``, of up to twice as many words."""
    words = size.prompt_words + (index * 37 % (size.prompt_words + 1) if size.varied else 0)
    return " ".join(["How many red circles are there?", *["and"] * words, str(index)])


def image(size: Size, index: int) -> Image.Image:
    """Return image number ``index``, which is noise; with ``varied``, some are as little as half as high."""
    height = size.pixels - (28 * (index % (size.pixels // 56 + 1)) if size.varied else 0)
    pixels = np.random.default_rng(index).integers(0, 256, (height, size.pixels, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
