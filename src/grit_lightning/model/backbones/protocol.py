"""Interface of a backbone: the checkpoint-specific operations that the rest of the package uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL.Image import Image
from transformers import BaseImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from grit_lightning.types import Completion, FinishReason, Prompt, Sample


class Backbone(Protocol):
    """A model family bound to one checkpoint. Building it is cheap: only :meth:`load_model` reads weights."""

    checkpoint: str
    prompt_version: str
    """Hash of the prompt: changes with its template and with the prefill of the assistant's turn."""
    tokenizer: PreTrainedTokenizerBase
    image_processor: BaseImageProcessor
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    banned_token_ids: tuple[int, ...]
    """Ids of tokens that are never sampled: vision placeholders, padding, turn headers."""

    plain_tokens: tuple[str, ...]
    """Added tokens of the tokenizer that are read and written as plain text, because the model never learned them."""

    def encode(self, sample: Sample, images: Sequence[Image]) -> Prompt:
        """Tokenize and preprocess a sample and its images. Raise ``DataError`` if it cannot be turned into a prompt."""
        ...

    def completion(self, token_ids: Sequence[int], finish: FinishReason, prompt: Prompt) -> Completion:
        """Build a completion from sampled token ids, with its decoded text."""
        ...

    def target(self, text: str, prompt: Prompt) -> Completion:
        """Build the completion to learn in supervised fine-tuning: the text and the model's end-of-turn token."""
        ...

    def unexpanded(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt's text, in which one placeholder stands for each image."""
        ...

    def weights_folder(self) -> str:
        """Return the folder that weights are read from; those of a hub id are downloaded first."""
        ...

    def load_model(self) -> PreTrainedModel:
        """Load the model with its weights, in eval mode. Raise ``CheckpointError`` if the checkpoint is unusable."""
        ...

    def outline(self) -> PreTrainedModel:
        """Build the model without weights, on the meta device: names, shapes, dtypes and trainable flags."""
        ...

    def weight_bits(self, model: PreTrainedModel) -> dict[str, float]:
        """Return the bits per weight of each quantized parameter, by name; empty without quantization.

        Args:
            model: the model of :meth:`outline`.
        """
        ...

    def count_image_tokens(self, prompt: Prompt) -> int:
        """Return the number of image tokens in a prompt."""
        ...
