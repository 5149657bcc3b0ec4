"""Chat template of a checkpoint: find it, check that it takes an image, and render the user's turn with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from grit_lightning.errors import CheckpointError
from grit_lightning.types import IMAGE_MARK

IMAGE = None
"""Placeholder of an image in the content of a turn."""

PROCESSOR_FILE = "chat_template.json"
"""File in which processors used to store their template; transformers' tokenizers do not read it."""


def read_chat_template(tokenizer: PreTrainedTokenizerBase, folder: Path, image_token: str, checkpoint: str) -> None:
    """Give a tokenizer the chat template that transformers' processor would use, and check that it takes an image.

    The processor prefers ``chat_template.jinja`` to ``chat_template.json`` to the tokenizer's own.

    Args:
        tokenizer: the checkpoint's tokenizer, whose ``chat_template`` is set.
        folder: folder of the checkpoint.
        image_token: placeholder that the template renders for an image.
        checkpoint: name of the checkpoint, for error messages.

    Raises:
        CheckpointError: there is no template, or it does not render an image and a text.
    """
    stored = folder / PROCESSOR_FILE
    if stored.is_file() and not (folder / "chat_template.jinja").is_file():
        tokenizer.chat_template = _of_processor(stored)
    if tokenizer.chat_template is None:
        raise CheckpointError(
            f"{checkpoint}: has no chat template, expected one in chat_template.jinja, {PROCESSOR_FILE} or "
            "tokenizer_config.json"
        )
    if render_turn(tokenizer, [IMAGE, "?"], checkpoint).count(image_token) != 1:
        raise CheckpointError(
            f"{checkpoint}: its chat template does not render an image, expected one {image_token} for a message with "
            "an image"
        )


def render_turn(tokenizer: PreTrainedTokenizerBase, content: Sequence[str | None], checkpoint: str) -> str:
    """Return a conversation of one user's turn, images and texts, with the header of the assistant's turn.

    Args:
        tokenizer: the checkpoint's tokenizer with its chat template.
        content: texts, and ``IMAGE`` for each image, in order.
        checkpoint: name of the checkpoint, for error messages.

    Raises:
        CheckpointError: the chat template does not accept a message with an image.
    """
    parts = [{"type": "image"} if part is IMAGE else {"type": "text", "text": part} for part in content]
    messages = [{"role": "user", "content": parts}]
    try:
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: its chat template cannot render a message with an image, expected one that takes a list of "
            f"an image and a text: {error}"
        ) from error
    return rendered


def turn_content(text: str, num_images: int) -> list[str | None]:
    """Return the content of a turn, for :func:`render_turn`.

    Args:
        text: the text, whose marks ``<image>`` stand for images; without marks, the images stand before it.
        num_images: number of images.
    """
    pieces = text.split(IMAGE_MARK) if IMAGE_MARK in text else [*[""] * num_images, text]
    content = [part for piece in pieces for part in (IMAGE, piece)][1:]
    return [part for part in content if part != ""]


def expand_images(
    ids: Sequence[int], image: int, counts: Sequence[int], around: tuple[Sequence[int], Sequence[int]], checkpoint: str
) -> list[int]:
    """Replace each image placeholder by the tokens of its image.

    Args:
        ids: token ids of a prompt with one placeholder per image.
        image: id of the placeholder, and of an image's tokens.
        counts: number of tokens of each image.
        around: ids that precede and follow the tokens of an image.
        checkpoint: name of the checkpoint, for error messages.

    Raises:
        CheckpointError: there are not as many placeholders as images.
    """
    if ids.count(image) != len(counts):
        raise CheckpointError(f"{checkpoint}: its chat template must render one image placeholder per image")
    before, after = around
    left = iter(counts)
    return [new for token in ids for new in ([*before, *[image] * next(left), *after] if token == image else [token])]


def _of_processor(file: Path) -> str:
    try:
        template = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: cannot be read, expected an object with the field chat_template") from error
    if not isinstance(template, str):
        raise CheckpointError(f"{file}: field chat_template is {type(template).__name__}, expected a text")
    return template
