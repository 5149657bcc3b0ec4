"""Special tokens of a checkpoint: image, padding and end tokens, those never sampled, those written as plain text."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from grit_lightning.errors import CheckpointError
from grit_lightning.model.backbones.family import Family


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids of one checkpoint.

    Attributes:
        image: id of the image token.
        end_of_turn: id of the token that ends the assistant's turn.
        pad: id of the padding token.
        eos: ids of the tokens that end a completion.
        banned: ids that are never sampled: vision and padding tokens, turn headers, and unused rows of the embedding.
        around_image: ids that precede and follow the image tokens of one image; both empty in most families.
        control: strings that the tokenizer reads as special tokens; a question must not contain them.
    """

    image: int
    end_of_turn: int
    pad: int
    eos: tuple[int, ...]
    banned: tuple[int, ...]
    around_image: tuple[list[int], list[int]]
    control: tuple[str, ...]


def read_special_tokens(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, family: Family, checkpoint: str
) -> SpecialTokens:
    """Read the special tokens of a checkpoint from its tokenizer.

    Args:
        tokenizer: tokenizer of the checkpoint.
        config: config of the checkpoint.
        family: family of the checkpoint, which names its own special tokens.
        checkpoint: name of the checkpoint, for error messages.

    Raises:
        CheckpointError: the tokenizer lacks a required token.
    """
    image = token_id(tokenizer, family.image_token, family, checkpoint)
    end_of_turn = token_id(tokenizer, "<|im_end|>", family, checkpoint)
    pad = tokenizer.pad_token_id
    if pad is None:
        raise CheckpointError(f"{checkpoint}: the tokenizer has no padding token")
    vocabulary = tokenizer.get_vocab()
    eos = tuple({end_of_turn, tokenizer.eos_token_id})
    never = {vocabulary[token] for token in family.never_sampled if token in vocabulary}
    # The embedding is padded beyond the tokenizer's vocabulary; those rows belong to no token.
    unused = range(len(tokenizer), config.get_text_config().vocab_size)
    added = tokenizer.added_tokens_decoder.values()  # some, such as <think>, are not special
    before, after = ([token_id(tokenizer, token, family, checkpoint)] if token else [] for token in family.around_image)
    return SpecialTokens(
        image=image,
        end_of_turn=end_of_turn,
        pad=pad,
        eos=eos,
        banned=tuple(sorted({*never, *({pad} - set(eos)), *unused})),
        around_image=(before, after),
        control=tuple(str(token) for token in added if token.special),
    )


def token_id(tokenizer: PreTrainedTokenizerBase, token: str, family: Family, checkpoint: str) -> int:
    """Return the id of one token.

    Raises:
        CheckpointError: the tokenizer lacks the token.
    """
    ids: dict[str, int] = tokenizer.get_vocab()
    if token not in ids:
        raise CheckpointError(f"{checkpoint}: the tokenizer lacks {token}, which {family.name} needs")
    return ids[token]


class TextEncoder:
    """Encodes a text without special tokens around it, with chosen added tokens as plain text.

    Decoding needs nothing of the kind: both forms decode to the same text.

    Args:
        tokenizer: the checkpoint's tokenizer, which is left unchanged.
        plain: added tokens to split like any other text, such as ``<think>``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, plain: Collection[str]) -> None:
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        if set(plain) & set(tokenizer.get_vocab()):
            state = json.loads(self._tokenizer.to_str())
            _hide(state["added_tokens"], plain)
            self._tokenizer = Tokenizer.from_str(json.dumps(state))

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def write_as_plain_text(folder: Path, plain: Collection[str]) -> None:
    """Change the tokenizer of an exported folder so that it splits ``plain`` like :class:`TextEncoder`.

    The tokens keep their ids under names that no text contains. Without this, a server would give the model tokens
    that it did not see in training.
    """
    for name, field in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", "added_tokens_decoder")):
        file = folder / name
        if plain and file.is_file():
            state = json.loads(file.read_text(encoding="utf-8"))
            tokens = state.get(field, [])
            _hide(tokens.values() if isinstance(tokens, dict) else tokens, plain)
            file.write_text(json.dumps(state, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _hide(tokens: Iterable[dict[str, Any]], plain: Collection[str]) -> None:
    """Rename added tokens, which keeps the ids of the others where removing them would not."""
    for token in tokens:
        if token["content"] in plain:
            token["content"] = f"<|unused:{token['content']}|>"
