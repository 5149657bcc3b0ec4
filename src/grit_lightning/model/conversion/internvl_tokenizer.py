"""Tokenizer of an original InternVL checkpoint, extended by what the native processor needs and a chat template."""

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
    # transformers suggests <video>, but the released vocabulary lacks it and the embedding has no row for it.
    "video_token": "<|video_pad|>",
}
"""Tokens, keyed by the tokenizer attributes that the native processor reads."""

_SYSTEM_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
"""System message of the released conversation template ``internvl2_5``.

Source: github.com/OpenGVLab/InternVL, ``conversation.py``.
"""

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
"""Chat template of the native releases, which adds the released system message to conversations without one.

The native releases leave the system message out. The original chat code always sends it, and so did GRIT's training.
The original ``tokenizer_config.json`` has Qwen's system message instead, with which users measured lower scores (issues
1094 and 1170 of the same repository).
"""


def native_tokenizer(source: Path, system_message: str | None) -> Qwen2Tokenizer:
    """Load the tokenizer of an original checkpoint folder for the native processor, with unchanged token ids.

    Args:
        source: checkpoint folder.
        system_message: the checkpoint's own system message; ``None`` or empty to use the released one.

    Raises:
        CheckpointError: a tokenizer file or token is missing, or the tokenizer cannot be read.
    """
    if not (source / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):  # transformers would go on with an empty vocabulary
            if not (source / name).is_file():
                raise CheckpointError(f"{source}: lacks {name}, a file of its tokenizer")
    vocabulary = _read(source).get_vocab()
    for token in (*_NAMED_TOKENS.values(), END_OF_TURN):
        if token not in vocabulary:  # transformers would add it, without a row in the embedding
            raise CheckpointError(f"{source}: its tokenizer lacks {token}")
    tokenizer = _read(source, extra_special_tokens=_NAMED_TOKENS)
    message = json.dumps(system_message or _SYSTEM_MESSAGE, ensure_ascii=False)
    tokenizer.chat_template = _CHAT_TEMPLATE.replace("SYSTEM_MESSAGE", message)
    return tokenizer


def _read(source: Path, **options: object) -> Qwen2Tokenizer:
    try:
        return Qwen2Tokenizer.from_pretrained(source, **options)
    except Exception as error:  # the tokenizers library raises plain Exception
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{source}: its tokenizer cannot be read: {reason}") from error
