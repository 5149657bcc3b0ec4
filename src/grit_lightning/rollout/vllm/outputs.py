"""Translation of vLLM's outputs to completions, with the ends that the built-in engine gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from grit_lightning.errors import EngineError
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rollout.stopping import Found
from grit_lightning.types import Completion, Prompt

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput

_SHOWN = 6
"""Tokens shown on each side of the first difference of two prompts."""


def completion_of(
    output: CompletionOutput,
    found: Found,
    prompt: Prompt,
    backbone: Backbone,
    *,
    chosen: Mapping[int, tuple[int, float]] | None,
    sampled: bool,
) -> Completion:
    """Return the completion of one of vLLM's outputs.

    Args:
        output: what vLLM decoded, perhaps beyond the end.
        found: where the completion ends.
        prompt: its prompt.
        backbone: the model's backbone.
        chosen: by position, the token that was to be sampled and its log-probability; ``None`` where vLLM sampled by
            itself and reports log-probabilities.
        sampled: whether it was sampled, so that it has log-probabilities.

    Raises:
        EngineError: vLLM has sampled another token than the chosen one, has ended the completion where it does not
            end, or reports a log-probability that is no number.
    """
    if found.reason == "length" and output.finish_reason != "length":
        raise EngineError(
            f"vLLM ended a completion ({output.finish_reason}) that holds neither the stop text nor an end token: "
            f"…{output.text[-80:]!r}"
        )
    ids = tuple(output.token_ids[: found.length])
    for position, token in enumerate(ids):
        if chosen is not None and chosen[position][0] != token:
            raise EngineError(
                f"vLLM has token {token} at position {position} of a completion, and {chosen[position][0]} was chosen"
            )
    completion = backbone.completion(ids, found.reason, prompt)
    if not sampled:
        return completion
    if chosen is None:
        reported = output.logprobs or []
        logprobs = tuple(reported[position][token].logprob for position, token in enumerate(ids))
    else:
        logprobs = tuple(chosen[position][1] for position in range(len(ids)))
    if not all(value <= 1e-3 for value in logprobs):  # nor if one is NaN
        raise EngineError("vLLM reports a log-probability that is above 0 or no number")
    return replace(completion, logprobs=logprobs)


def require_same_prompt(prompt: Prompt, read: Sequence[int] | None, backbone: Backbone) -> None:
    """Check that vLLM has read a prompt as the policy does, its images' placeholders included.

    Args:
        prompt: the prompt.
        read: token ids that vLLM has read.
        backbone: the model's backbone, which decodes them for the message.

    Raises:
        EngineError: the ids differ; the message shows both around the first difference.
    """
    ours, theirs = prompt.input_ids_S.tolist(), list(read or ())
    if ours == theirs:
        return
    pairs = zip(ours, theirs, strict=False)
    first = next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(ours), len(theirs)))
    start = max(0, first - _SHOWN)
    shown = [repr(backbone.tokenizer.decode(ids[start : first + _SHOWN])) for ids in (theirs, ours)]
    raise EngineError(
        f"{prompt.sample.source}: vLLM reads the prompt as {len(theirs)} tokens, expected the policy's {len(ours)}: "
        f"they differ from token {first}, {shown[0]} in place of {shown[1]}"
    )
