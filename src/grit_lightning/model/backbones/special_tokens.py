"""Special tokens of a checkpoint: image, padding and end tokens, those never sampled, those written as plain text."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

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
    """Encodes a text without special tokens around it; chosen strings are plain text, even if there is a token for each.

    Decoding needs nothing of the kind: both forms decode to the same text.

    Args:
        tokenizer: the checkpoint's tokenizer, which is left unchanged, because exports contain it.
        plain: added tokens to split like any other text, such as ``<think>``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, plain: Collection[str]) -> None:
        self._tokenizer: Tokenizer = tokenizer.backend_tokenizer
        if set(plain) & set(tokenizer.get_vocab()):
            state = json.loads(self._tokenizer.to_str())
            for token in state["added_tokens"]:
                if token["content"] in plain:
                    token["content"] = f"\uffff{token['content']}"  # in no text; without the token, ids would shift
            self._tokenizer = Tokenizer.from_str(json.dumps(state))

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
