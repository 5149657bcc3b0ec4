"""Tests of the ends of completions and their reasons."""

from __future__ import annotations

import torch

from grit_lightning.rollout.stopping import FinishRecorder


def feed(backbone, texts: list[str], limit: int, stop: str = "</answer>") -> FinishRecorder:
    """Feed written completions to the recorder token by token, as decoding does."""
    rows = [backbone.tokenizer(text)["input_ids"] for text in texts]
    recorder = FinishRecorder(backbone, stop, limit)
    for count in range(1, limit + 1):
        ids = torch.tensor([[*row, *[backbone.pad_token_id] * limit][:count] for row in rows])
        if recorder(ids, None).all():
            break
    return recorder


def test_finish_reasons_and_lengths_by_hand(backbone) -> None:
    count = lambda text: len(backbone.tokenizer(text)["input_ids"])  # noqa: E731
    texts = [
        "<answer> 2 </answer>",
        "no<|im_end|>",
        "<answer> 2 </answer><answer> 3 </answer>",
        "goes on and on and on and on and on and on and on and on and on and on and on and on and on and on and on",
        "<|im_end|>",
    ]
    recorder = feed(backbone, texts, limit=25)
    assert recorder.reasons() == ["stop", "eos", "stop", "length", "eos"]
    assert recorder.lengths() == [count(texts[0]), count(texts[1]), count("<answer> 2 </answer>"), 25, 1]


def test_a_stop_text_that_ends_inside_a_token_is_found(backbone) -> None:
    tokens = backbone.tokenizer.tokenize("a blue circle and more")
    assert tokens[1] == "Ġblue", "one token, which goes on after the stop text"
    recorder = feed(backbone, ["a blue circle and more", "a red circle"], limit=4, stop="bl")
    assert recorder.reasons() == ["stop", "length"]
    assert recorder.lengths() == [2, 4]
