"""Requests to vLLM: prompts and sampling parameters."""

from __future__ import annotations

from typing import Any, Literal

from vllm import SamplingParams

from grit_lightning.data.images import load_images
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rollout.choice import Draw, Greedy
from grit_lightning.rollout.vllm.token_chooser import ARGUMENT
from grit_lightning.types import Prompt

Noise = Literal["counter", "seeds"]

_FORBIDDEN = -100.0
"""Bias of a banned token's logit where vLLM samples by itself, which takes no −∞."""


def request(backbone: Backbone, prompt: Prompt) -> dict[str, Any]:
    """Return a prompt as vLLM takes it: token ids with one placeholder per image, and the images as they are.

    Raises:
        DataError: an image can no longer be read.
    """
    return {
        "prompt_token_ids": backbone.unexpanded(prompt),
        "multi_modal_data": {"image": load_images(prompt.sample)},
    }


def sampling_parameters(
    backbone: Backbone, choose: Draw | Greedy, noise: Noise, *, place: int, key: int, max_new_tokens: int, stop: str
) -> SamplingParams:
    """Return the parameters of one completion.

    Args:
        backbone: the model's backbone.
        choose: the choice of tokens.
        noise: ``counter`` if :class:`~.token_chooser.TokenChooser` chooses, ``seeds`` if vLLM does.
        place: place of the completion among those of the call.
        key: number by which completions are told apart; vLLM's seed.
        max_new_tokens: limit on the tokens of the completion.
        stop: text that ends the completion and is part of it.
    """
    sampling: dict[str, Any] = {"temperature": 0.0, "extra_args": {ARGUMENT: place}}
    if noise == "seeds":
        sampling = {"temperature": 0.0, "logit_bias": dict.fromkeys(choose.banned, _FORBIDDEN)}
        if isinstance(choose, Draw):
            sampling |= {"temperature": choose.temperature, "top_k": choose.top_k, "top_p": choose.top_p}
            sampling |= {"seed": key % 2**63, "logprobs": 0}
    return SamplingParams(
        max_tokens=max_new_tokens,
        stop=[stop],
        include_stop_str_in_output=True,
        stop_token_ids=list(backbone.eos_token_ids),
        skip_special_tokens=False,
        spaces_between_special_tokens=False,
        **sampling,
    )
