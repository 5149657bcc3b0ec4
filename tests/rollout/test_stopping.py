"""Where completions end, and why."""

from __future__ import annotations

import torch

from grit_lightning.rollout.stopping import FinishRecorder


def feed(backbone, texts: list[str], limit: int) -> FinishRecorder:
    """Play already written completions through the recorder token by token, as decoding does."""
    rows = [backbone.tokenizer(text)["input_ids"] for text in texts]
    recorder = FinishRecorder(backbone, "</answer>", limit)
    for count in range(1, limit + 1):
        ids = torch.tensor([[*row, *[backbone.pad_token_id] * limit][:count] for row in rows])
        if recorder(ids, None).all():
            break
    return recorder


def test_why_and_where_completions_end(backbone) -> None:
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


def test_a_stop_within_a_token_counts(backbone) -> None:
    # "</answer>\n" ends in a token that holds more than the stop text's last character.
    recorder = feed(backbone, ["<answer> 2 </answer>\n and more"], limit=25)
    assert recorder.reasons() == ["stop"]
