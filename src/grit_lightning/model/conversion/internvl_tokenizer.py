"""The tokenizer of an original InternVL checkpoint, with what the native processor asks of it, and a chat template."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import Qwen2Tokenizer

from grit_lightning.errors import CheckpointError

END_OF_TURN = "<|im_end|>"
IMAGE_TOKEN = "<IMG_CONTEXT>"

_NAMED_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": IMAGE_TOKEN,
    # Not <video>, as transformers suggests: the released vocabulary lacks it, and the embedding has no row for it.
    "video_token": "<|video_pad|>",
}
"""Tokens by the names under which the native processor asks for them."""

_SYSTEM_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""Of the released conversation template ``internvl2_5`` (github.com/OpenGVLab/InternVL, ``conversation.py``)."""

_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n{{ SYSTEM_MESSAGE }}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif part['type'] == 'video' %}{{ '<|video_pad|>\n' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""That of the native releases and, before a conversation without one, the released system message.

The native releases leave it out. The original chat code sends it always, and so did GRIT's training. The original
``tokenizer_config.json`` has Qwen's in its place, with which users measured lower scores (issues 1094 and 1170 of the
same repository).
"""


def native_tokenizer(source: Path, system_message: str | None) -> Qwen2Tokenizer:
    """The tokenizer of an original checkpoint folder, as the native processor needs it. No id changes.

    Args:
        source: the folder.
        system_message: of a checkpoint that has one of its own; ``None`` for the released one.

    Raises:
        CheckpointError: a file or a token is missing.
    """
    if not (source / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):  # without them the tokenizer would be built without a vocabulary
            if not (source / name).is_file():
                raise CheckpointError(f"{source}: lacks {name} of its tokenizer")
    vocabulary = _read(source).get_vocab()
    for token in (*_NAMED_TOKENS.values(), END_OF_TURN):
        if token not in vocabulary:  # it would be added, and the embedding have no row for it
            raise CheckpointError(f"{source}: its tokenizer lacks {token}")
    tokenizer = _read(source, extra_special_tokens=_NAMED_TOKENS)
    message = json.dumps(system_message or _SYSTEM_MESSAGE, ensure_ascii=False)
    tokenizer.chat_template = _CHAT_TEMPLATE.replace("SYSTEM_MESSAGE", message)
    return tokenizer


def _read(source: Path, **options: object) -> Qwen2Tokenizer:
    try:
        return Qwen2Tokenizer.from_pretrained(source, **options)
    except Exception as error:  # tokenizers raises nothing more special
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: its tokenizer cannot be read: {reason}") from error
