"""Chat template of a checkpoint: find it, check that it takes an image, and render the user's turn with it."""

from __future__ import annotations

import json
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from grit_lightning.errors import CheckpointError

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
    if render_turn(tokenizer, "?", checkpoint).count(image_token) != 1:
        raise CheckpointError(
            f"{checkpoint}: its chat template does not render an image, expected one {image_token} for a message with "
            "an image"
        )


def render_turn(tokenizer: PreTrainedTokenizerBase, text: str, checkpoint: str) -> str:
    """Return a conversation of one user's turn, an image and a text, with the header of the assistant's turn.

    Raises:
        CheckpointError: the chat template does not accept a message with an image.
    """
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    try:
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint}: its chat template cannot render a message with an image, expected one that takes a list of "
            f"an image and a text: {error}"
        ) from error
    return rendered


def _of_processor(file: Path) -> str:
    try:
        template = json.loads(file.read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: cannot be read, expected an object with the field chat_template") from error
    if not isinstance(template, str):
        raise CheckpointError(f"{file}: field chat_template is {type(template).__name__}, expected a text")
    return template
