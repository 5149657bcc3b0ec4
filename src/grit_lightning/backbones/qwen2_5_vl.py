"""Qwen2.5-VL (arXiv 2502.13923): Hugging Face checkpoints of model type ``qwen2_5_vl``, of any size.

The model reads an image resized so that both sides are multiples of 28 (patch 14, merged 2 × 2), and writes boxes in
absolute pixels of that resized image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)

from grit_lightning.backbones.random_weights import random_checkpoint
from grit_lightning.errors import CheckpointError, ConfigError, DataError
from grit_lightning.types import Completion, FinishReason, Prompt, Sample

AttentionImplementation = Literal["auto", "sdpa"]
Dtype = Literal["float32", "bfloat16"]

_BANNED = (
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Sampling one of these would ask the model for an image that is not there, or open another turn."""


class Qwen25VL:
    """A Qwen2.5-VL checkpoint.

    Args:
        checkpoint: a folder in Hugging Face layout, or a hub id.
        prompt: the user's text after the image; ``{question}`` stands for the question.
        prefill: what the assistant's turn begins with, such as ``<think>``: given, not sampled. The text of a
            completion begins with it, its tokens do not.
        min_pixels: lower limit on the area of the resized image.
        max_pixels: upper limit on the area of the resized image. 28 · 28 pixels make one image token.
        dtype: of the weights: ``float32`` for full fine-tuning (an update of 1e-6 vanishes in bf16), ``bfloat16`` else.
        attn_implementation: ``auto`` is sdpa, the one that takes the block mask of packed groups as it is: eager
            attention would add the boolean mask to its scores, flash attention takes none.
        gradient_checkpointing: recompute activations in the backward pass.
        random_weights_seed: build random weights from the checkpoint's config; ``null`` to read its own.
        freeze: beginnings of the names of parameters that are not trained, such as ``model.visual``.

    Raises:
        CheckpointError: the folder is missing files, or holds another architecture.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        prompt: str,
        prefill: str,
        min_pixels: int,
        max_pixels: int,
        dtype: Dtype,
        attn_implementation: AttentionImplementation,
        gradient_checkpointing: bool,
        random_weights_seed: int | None,
        freeze: Sequence[str],
    ) -> None:
        if "{question}" not in prompt:
            raise ConfigError("prompt.template lacks {question}, so the model would never see the question")
        self.checkpoint = checkpoint = str(Path(checkpoint).expanduser()) if checkpoint[:1] == "~" else checkpoint
        self.prompt = prompt
        self.prefill = prefill
        self.dtype = getattr(torch, dtype)
        self.attn_implementation = "sdpa" if attn_implementation == "auto" else attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        self.random_weights_seed = random_weights_seed
        self.freeze = tuple(freeze)
        if not Path(checkpoint).is_dir() and (checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") > 1):
            raise CheckpointError(f"{checkpoint}: no such folder, and not the form of a hub id, ORGANISATION/NAME")
        with _checkpoint_errors(checkpoint):
            self.config = AutoConfig.from_pretrained(checkpoint)
            _require_model_type(self.config.model_type, checkpoint)
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
            # By name: the automatic class needs torchvision, in some versions even to be imported.
            self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(checkpoint)
        self.image_processor.size = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
        self._read_special_tokens()

    def encode(self, sample: Sample, image: Image) -> Prompt:
        """The prompt for a sample: image, then text, then the assistant's header and what its turn begins with.

        Raises:
            DataError: the question contains a control token of the model, such as its image placeholder.
        """
        if control := next((token for token in self.control_tokens if token in sample.question), None):
            raise DataError(f"field 'question' contains the model's control token {control}", sample.source)
        vision = self.image_processor(images=image, return_tensors="pt")
        grid = vision["image_grid_thw"][0]
        text = self.render(sample.question)
        ids = torch.tensor(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if int((ids == self.image_token_id).sum()) != 1:
            raise CheckpointError(f"{self.checkpoint}: its chat template does not give one image placeholder an image")
        patch, merge = self.image_processor.patch_size, self.image_processor.merge_size
        repeats = torch.where(ids == self.image_token_id, int(grid.prod()) // merge**2, 1)
        ids_S = ids.repeat_interleave(repeats)
        return Prompt(
            sample=sample,
            text=text,
            input_ids_S=ids_S,
            position_ids_A_S=mrope_positions(ids_S == self.image_token_id, grid, merge),
            vision={"pixel_values": vision["pixel_values"], "image_grid_thw": vision["image_grid_thw"]},
            box_space=(int(grid[2]) * patch, int(grid[1]) * patch),
        )

    def render(self, question: str) -> str:
        """The chat template around image and prompt, ending with the assistant's header and the prefill."""
        content = [{"type": "image"}, {"type": "text", "text": self.prompt.replace("{question}", question)}]
        messages = [{"role": "user", "content": content}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + self.prefill

    def completion(self, token_ids: Sequence[int], finish: FinishReason, prompt: Prompt) -> Completion:
        """A completion with the prefill and its decoded text, special tokens left out."""
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Completion(tuple(token_ids), self.prefill + text, finish, prompt.box_space)

    def target(self, text: str, prompt: Prompt) -> Completion:
        """A completion of this text and the end of the turn: what the model should write after the prefill.

        Raises:
            DataError: the text does not begin with the prefill.
        """
        if not text.startswith(self.prefill):
            raise DataError(f"the completion does not begin with prompt.prefill, {self.prefill}", prompt.sample.source)
        ids = self.tokenizer(text.removeprefix(self.prefill), add_special_tokens=False)["input_ids"]
        return Completion((*ids, self.end_of_turn_id), text, "eos", prompt.box_space)

    def count_image_tokens(self, prompt: Prompt) -> int:
        """How many of a prompt's tokens are its image's."""
        return int((prompt.input_ids_S == self.image_token_id).sum())

    def weights_folder(self) -> str:
        """What weights are read from: the checkpoint, or a cached folder of random ones, made on first use.

        Raises:
            CheckpointError: the cache cannot be written.
        """
        if self.random_weights_seed is None:
            return self.checkpoint
        return str(random_checkpoint(self.config, self.random_weights_seed, self.tokenizer, self.image_processor))

    def load_model(self) -> PreTrainedModel:
        """The model with its weights, in eval mode.

        Raises:
            CheckpointError: weights are missing, torn or of another shape.
        """
        folder = self.weights_folder()
        with _checkpoint_errors(self.checkpoint):
            model, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                folder,
                dtype=self.dtype,
                attn_implementation=self.attn_implementation,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        # transformers would go on with random values in their place.
        if unread := sorted(map(str, {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})):
            raise CheckpointError(f"{folder}: {len(unread)} weights are missing or of another shape, as {unread[0]}")
        # generate() fills whatever its config leaves open from the checkpoint's own generation config, which for the
        # released models sets a repetition penalty: rollouts would not follow the policy's distribution.
        model.generation_config = GenerationConfig()
        self._freeze(model)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return model

    def _freeze(self, model: PreTrainedModel) -> None:
        frozen = {
            beginning: [value for name, value in model.named_parameters() if name.startswith(beginning)]
            for beginning in self.freeze
        }
        if unknown := next((beginning for beginning, values in frozen.items() if not values), None):
            raise ConfigError(f"model.freeze: no parameter of {self.checkpoint} has a name that begins with {unknown}")
        for values in frozen.values():
            for value in values:
                value.requires_grad_(False)

    def _read_special_tokens(self) -> None:
        vocabulary = self.tokenizer.get_vocab()
        pad = self.tokenizer.pad_token_id
        if pad is None or "<|image_pad|>" not in vocabulary or "<|im_end|>" not in vocabulary:
            raise CheckpointError(
                f"{self.checkpoint}: the tokenizer lacks Qwen's special tokens, expected a Qwen2.5-VL"
            )
        self.image_token_id = vocabulary["<|image_pad|>"]
        added = self.tokenizer.added_tokens_decoder.values()  # some, such as <think>, are ordinary text
        self.control_tokens = tuple(str(token) for token in added if token.special)
        self.pad_token_id = pad
        self.end_of_turn_id = vocabulary["<|im_end|>"]
        self.eos_token_ids = tuple({self.end_of_turn_id, self.tokenizer.eos_token_id})
        banned = {vocabulary[token] for token in _BANNED if token in vocabulary} | {pad} - set(self.eos_token_ids)
        # The embedding is padded beyond the tokenizer's vocabulary; those rows are no text.
        unused = range(len(self.tokenizer), self.config.get_text_config().vocab_size)
        self.banned_token_ids = tuple(sorted({*banned, *unused}))


def mrope_positions(is_image_S: Tensor, grid_3: Tensor, merge: int) -> Tensor:
    """Rotary positions (time, height, width) of a prompt with one image, int64, shape (3, S).

    Text advances all three axes together; the image's tokens share a time and take their row and column; the text after
    it goes on from the largest of them (arXiv 2409.12191 §2.1, "M-RoPE").

    Args:
        is_image_S: bool, which tokens are the image's; contiguous.
        grid_3: ``(time, height, width)`` of the image in patches.
        merge: patches per token and side.
    """
    length, start = is_image_S.shape[0], int(is_image_S.long().argmax())
    rows, columns = int(grid_3[1]) // merge, int(grid_3[2]) // merge
    after = torch.arange(length - start - rows * columns) + start + max(rows, columns)
    image = torch.stack(
        [
            torch.zeros(rows * columns, dtype=torch.long),
            torch.arange(rows).repeat_interleave(columns),
            torch.arange(columns).repeat(rows),
        ]
    )
    return torch.cat([torch.arange(start).expand(3, -1), image + start, after.expand(3, -1)], dim=1)


def _require_model_type(model_type: str, checkpoint: str) -> None:
    if model_type != "qwen2_5_vl":
        raise CheckpointError(f"{checkpoint}: model type is {model_type!r}, expected 'qwen2_5_vl'")


@contextmanager
def _checkpoint_errors(checkpoint: str) -> Iterator[None]:
    """Turn what transformers raises for an unusable checkpoint into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: cannot be loaded as a Qwen2.5-VL checkpoint: {reason}") from error
