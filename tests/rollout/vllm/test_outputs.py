"""Tests of the translation of vLLM's outputs, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grit_lightning.errors import EngineError
from grit_lightning.rollout.stopping import Found
from grit_lightning.rollout.vllm.outputs import completion_of, require_same_prompt


def output(backbone, text: str, **more: Any) -> Any:
    ids = backbone.tokenizer(text)["input_ids"]
    return SimpleNamespace(**({"token_ids": ids, "text": text, "finish_reason": "stop", "logprobs": None} | more))


def test_a_completion_ends_where_the_automaton_says_and_has_the_choosers_logprobs(backbone, make_prompt) -> None:
    given = output(backbone, "<answer> 2 </answer> and more")
    chosen = {position: (token, -0.1 * position) for position, token in enumerate(given.token_ids)}
    found = completion_of(given, Found(3, "stop"), make_prompt(), backbone, chosen=chosen, sampled=True)
    assert found.token_ids == tuple(given.token_ids[:3])
    assert found.finish == "stop"
    assert found.logprobs == pytest.approx((0.0, -0.1, -0.2))
    greedy = completion_of(given, Found(3, "stop"), make_prompt(), backbone, chosen=chosen, sampled=False)
    assert greedy.logprobs is None


def test_without_the_chooser_vllms_own_logprobs_are_taken(backbone, make_prompt) -> None:
    given = output(backbone, "two words")
    given.logprobs = [{token: SimpleNamespace(logprob=-0.5)} for token in given.token_ids]
    whole = Found(len(given.token_ids), "eos")
    found = completion_of(given, whole, make_prompt(), backbone, chosen=None, sampled=True)
    assert set(found.logprobs) == {-0.5}


@pytest.mark.parametrize("value", [float("nan"), 0.5])
def test_a_logprob_that_is_none_is_refused(backbone, make_prompt, value: float) -> None:
    given = output(backbone, "a")
    chosen = {0: (given.token_ids[0], value)}
    with pytest.raises(EngineError, match="log-probability that is above 0 or no number"):
        completion_of(given, Found(1, "eos"), make_prompt(), backbone, chosen=chosen, sampled=True)


def test_another_token_than_the_chosen_one_is_refused(backbone, make_prompt) -> None:
    given = output(backbone, "a")
    with pytest.raises(EngineError, match=rf"token {given.token_ids[0]} at position 0 .* and 7 was chosen"):
        completion_of(given, Found(1, "eos"), make_prompt(), backbone, chosen={0: (7, 0.0)}, sampled=True)


def test_an_end_without_stop_text_is_refused_and_one_by_the_limit_is_not(backbone, make_prompt) -> None:
    whole = Found(1, "length")
    with pytest.raises(EngineError, match=r"ended a completion \(stop\) that holds neither the stop text .*: …'a b'"):
        completion_of(output(backbone, "a b"), whole, make_prompt(), backbone, chosen=None, sampled=False)
    cut = output(backbone, "a b", finish_reason="length")
    assert completion_of(cut, whole, make_prompt(), backbone, chosen=None, sampled=False).truncated


def test_a_prompt_read_differently_shows_both_around_the_first_difference(backbone, make_prompt) -> None:
    prompt = make_prompt()
    ids = prompt.input_ids_S.tolist()
    require_same_prompt(prompt, ids, backbone)
    image = int((prompt.input_ids_S == backbone.image_token_id).nonzero()[-1])
    with pytest.raises(
        EngineError, match=rf"as {len(ids) - 1} tokens, expected the policy's {len(ids)}: they differ from"
    ) as error:
        require_same_prompt(prompt, ids[:image] + ids[image + 1 :], backbone)
    assert str(error.value).startswith(prompt.sample.source)
    assert "<|vision_end|>" in str(error.value)
    with pytest.raises(EngineError, match=f"differ from token {len(ids) - 2}"):
        require_same_prompt(prompt, ids[:-2], backbone)
