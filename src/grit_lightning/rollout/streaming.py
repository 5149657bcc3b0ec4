"""Decoding of one completion for somebody who reads along."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from queue import SimpleQueue

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rollout.decoding import Choose
from grit_lightning.rollout.engine import complete
from grit_lightning.types import Completion, Prompt


class _Closed(Exception):
    """Raised in the decoding thread when nobody reads on."""


def stream(
    model: PreTrainedModel,
    backbone: Backbone,
    prompt: Prompt,
    *,
    choose: Choose,
    key: int,
    max_new_tokens: int,
    stop: str,
) -> Iterator[Completion]:
    """Decode one completion in a thread, and yield it as it grows; the last one is whole.

    Each is the completion as if it ended there, with finish reason ``length``, and all tokens that there are when it is
    asked for. The last one equals that of :func:`~.engine.complete`. Closing the iterator ends the thread.

    Args:
        model: the model, in eval mode.
        backbone: the model's backbone.
        prompt: the prompt.
        choose: function that chooses the next token.
        key: number by which ``choose`` tells completions apart.
        max_new_tokens: limit on the tokens of the completion.
        stop: text that ends the completion and is part of it.
    """
    found: SimpleQueue[int | Completion | BaseException] = SimpleQueue()
    closed = threading.Event()

    def watched(logits_N_V: Tensor, keys_N: Tensor, position: Tensor) -> Tensor:
        if closed.is_set():
            raise _Closed
        token_N = choose(logits_N_V, keys_N, position)
        found.put(int(token_N[0]))
        return token_N

    def work() -> None:
        try:
            with torch.no_grad():  # which is a setting of each thread
                (whole,) = complete(
                    model,
                    backbone,
                    [prompt],
                    [key],
                    max_new_tokens=max_new_tokens,
                    stop=stop,
                    choose=watched,
                    static=False,
                )
            found.put(whole)
        except BaseException as error:  # it belongs to the reader
            found.put(error)

    thread = threading.Thread(target=work, name="decoding", daemon=True)
    thread.start()
    tokens: list[int] = []
    try:
        while True:
            news = [found.get()]
            while not found.empty():
                news.append(found.get())
            tokens += [one for one in news if isinstance(one, int)]
            last = news[-1]
            if isinstance(last, BaseException):
                raise last
            if isinstance(last, Completion):
                yield last
                return
            yield backbone.completion(tokens, "length", prompt)
    finally:
        closed.set()
        thread.join()
