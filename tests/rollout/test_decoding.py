"""Tests of decoding against ``generate``: ended completions, compaction and a static cache change no token."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
)

from grit_lightning.rollout import decoding
from grit_lightning.rollout.sampler import greedy
from grit_lightning.rollout.shared_prompt_cache import SharedPromptCache
from support.decoded import LIMIT, G, decoded


@pytest.fixture(scope="module")
def model(backbone):
    return backbone.load_model()


# All in one group but one, a whole group at once, one after the other, and none.
LENGTHS = {
    "one_goes_on": [1, 1, 1, LIMIT, 2, 2, 2, 2, 3, 3, 3, 3],
    "group_by_group": [LIMIT] * 4 + [2] * 4 + [9] * 4,
    "one_by_one": [*range(1, 13)],
    "all_at_once": [5] * 12,
    "never": [LIMIT] * 12,
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_completions_that_end_early_do_not_change_the_others(
    backbone, model, prompts, monkeypatch, lengths: list[int]
) -> None:
    whole = decoded(model, backbone, prompts, [LIMIT] * 12)
    expected = [row[:length] for row, length in zip(whole, lengths, strict=True)]
    kept: list[tuple[int, ...]] = []
    keep = SharedPromptCache.keep
    monkeypatch.setattr(SharedPromptCache, "keep", lambda *given: (kept.append(given[2].shape), keep(*given))[1])
    for static in (False, True):
        assert decoded(model, backbone, prompts, lengths, static=static) == expected
    compacted = len(kept)
    monkeypatch.setattr(decoding, "SHRINK", -1.0)
    assert decoded(model, backbone, prompts, lengths) == expected
    assert len(kept) == compacted
    assert (compacted > 0) == (len(set(lengths)) > 1)


def test_a_completion_does_not_depend_on_how_many_share_its_prompt(backbone, model, prompts) -> None:
    together = decoded(model, backbone, prompts[:1], [LIMIT] * G)
    assert decoded(model, backbone, prompts[:1], [LIMIT], generations=1) == together[:1]


@torch.no_grad()
@pytest.mark.parametrize("together", [True, False], ids=["padded", "alone"])
def test_greedy_completions_equal_those_of_generate(backbone, model, prompts, together: bool) -> None:
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa").eval()
    batches = [prompts] if together else [[prompt] for prompt in prompts]
    completions = [
        completion
        for batch in batches
        for completion in greedy(model, backbone, batch, max_new_tokens=LIMIT, stop="</answer>")
    ]
    suppress = LogitsProcessorList([SuppressTokensLogitsProcessor(list(backbone.banned_token_ids))])
    ends = list(backbone.eos_token_ids)
    config = GenerationConfig(max_new_tokens=LIMIT, eos_token_id=ends, pad_token_id=backbone.pad_token_id)
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = prompt.input_ids_S[None]
        is_image = (ids == backbone.image_token_id).int()
        output = plain.generate(
            ids, mm_token_type_ids=is_image, **prompt.vision, generation_config=config, logits_processor=suppress
        )
        naive = output[0, prompt.num_tokens :].tolist()
        assert list(completion.token_ids) == naive[: len(completion.token_ids)]
        assert len(completion.token_ids) == len(naive) or completion.finish == "stop"


@torch.no_grad()
def test_a_model_with_another_attention_is_refused(backbone, prompts) -> None:
    plain = AutoModelForImageTextToText.from_pretrained(backbone.weights_folder(), attn_implementation="sdpa")
    with pytest.raises(ValueError, match="attention"):
        greedy(plain, backbone, prompts, max_new_tokens=2, stop="q")
