"""The ends of completions: an automaton over tokens that finds the stop text and end tokens, one look-up a token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.types import FinishReason


class Ends(Protocol):
    """A rule for the ends of completions, as a state per completion. All operations stay on the device."""

    def start(self, count: int, device: torch.device) -> Tensor:
        """Return the states of completions without tokens, int64, shape (``count``,)."""
        ...

    def next(self, state_N: Tensor, token_N: Tensor) -> Tensor:
        """Return the states after one more token of each completion; a completion that is over stays so."""
        ...

    def over(self, state_N: Tensor) -> Tensor:
        """Tell which completions are over, bool, shape (N,)."""
        ...


class Found(NamedTuple):
    """The end of a completion.

    Attributes:
        length: number of its tokens, the one that ended it included.
        reason: reason why it ended.
    """

    length: int
    reason: FinishReason


class StopAutomaton:
    """The rule of rollouts: a completion ends with the token that completes the stop text, or with an end token.

    The states are 0 to n − 1, the bytes of the stop text that the completion ends with (Knuth, Morris and Pratt 1977),
    n after the stop text, and n + 1 after an end token. A table has the next state by state and token, so tokens that
    contain the end of the stop text and more are found, too.

    Args:
        tokens: the bytes of each token; an id beyond them has none.
        stop: the stop text in UTF-8, not empty.
        eos: ids of the end tokens.
        vocabulary: number of ids.
    """

    def __init__(self, tokens: Sequence[bytes], stop: bytes, eos: Sequence[int], vocabulary: int) -> None:
        self.stopped, self.ended = len(stop), len(stop) + 1
        self._table = torch.from_numpy(_table(tokens, stop, eos, vocabulary))

    def start(self, count: int, device: torch.device) -> Tensor:
        """Return the states of completions without tokens, int64, shape (``count``,)."""
        self._table = self._table.to(device)
        return torch.zeros(count, dtype=torch.long, device=device)

    def next(self, state_N: Tensor, token_N: Tensor) -> Tensor:
        """Return the states after one more token of each completion."""
        return self._table[state_N, token_N]

    def over(self, state_N: Tensor) -> Tensor:
        """Tell which completions are over, bool, shape (N,)."""
        return state_N >= self.stopped

    def find(self, completions: Sequence[Sequence[int]], device: torch.device) -> list[Found]:
        """Return where completions end that were decoded elsewhere, perhaps beyond their ends.

        Args:
            completions: token ids of each.
            device: device to look on.
        """
        given_N = torch.tensor([len(ids) for ids in completions], device=device)
        padded = [torch.tensor(list(ids), dtype=torch.long, device=device) for ids in completions]
        token_N_T = pad_sequence(padded, batch_first=True)
        state_N, length_N = self.start(len(completions), device), torch.zeros_like(given_N)
        for position in range(token_N_T.shape[1]):
            going_N = ~self.over(state_N) & (position < given_N)
            state_N = torch.where(going_N, self.next(state_N, token_N_T[:, position]), state_N)
            length_N += going_N
        return list(map(Found, length_N.tolist(), self.reasons(state_N.tolist())))

    def reasons(self, states: Sequence[int]) -> list[FinishReason]:
        """Return why completions in these states ended; ``length`` if they did not."""
        found: dict[int, FinishReason] = {self.stopped: "stop", self.ended: "eos"}
        return [found.get(state, "length") for state in states]


def stop_automaton(backbone: Backbone, stop: str, vocabulary: int) -> StopAutomaton:
    """Return the automaton of a backbone's tokenizer and end tokens; it is built once for each stop text.

    Args:
        backbone: the backbone.
        stop: the stop text.
        vocabulary: number of ids that may be sampled.
    """
    return _stop_automaton(backbone.tokenizer, stop, backbone.eos_token_ids, vocabulary)


@lru_cache(maxsize=4)
def _stop_automaton(
    tokenizer: PreTrainedTokenizerBase, stop: str, eos: tuple[int, ...], vocabulary: int
) -> StopAutomaton:
    return StopAutomaton(token_bytes(tokenizer), stop.encode(), eos, vocabulary)


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> list[bytes]:
    """Return the bytes of each token of a byte-level tokenizer (as of GPT-2), in the order of ids.

    Such a tokenizer writes each byte of a token as one printable character, but added tokens as they are.
    """
    byte_of = {character: value for value, character in bytes_to_unicode().items()}
    added = {id_: str(token) for id_, token in tokenizer.added_tokens_decoder.items()}
    found = []
    for id_, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        plain = id_ in added or any(character not in byte_of for character in token)
        found.append((added.get(id_, token)).encode() if plain else bytes(map(byte_of.__getitem__, token)))
    return found


def _table(tokens: Sequence[bytes], stop: bytes, eos: Sequence[int], vocabulary: int) -> np.ndarray:
    """Return the next state by state and token, int64, shape (n + 2, V)."""
    by_byte = _by_byte(stop)
    count = len(stop)
    table = np.repeat(np.arange(count + 2)[:, None], vocabulary, axis=1)
    lengths = np.array([len(token) for token in tokens] + [0] * (vocabulary - len(tokens)))
    flat = np.frombuffer(b"".join(tokens), dtype=np.uint8)
    starts = np.concatenate([[0], lengths.cumsum()[:-1]])
    for place in range(lengths.max(initial=0)):
        longer = np.flatnonzero(lengths > place)
        table[: count + 1, longer] = by_byte[table[: count + 1, longer], flat[starts[longer] + place]]
    table[:count, list(eos)] = count + 1
    return table


def _by_byte(stop: bytes) -> np.ndarray:
    """Return the next state by number of matched bytes and byte, int64, shape (n + 1, 256); n stays n."""
    count = len(stop)
    table = np.zeros((count + 1, 256), dtype=np.int64)
    table[0, stop[0]] = 1
    fallback = 0  # state after the stop text's bytes from the second to the last matched one
    for matched in range(1, count):
        table[matched] = table[fallback]
        table[matched, stop[matched]] = matched + 1
        fallback = table[fallback, stop[matched]]
    table[count] = count
    return table
