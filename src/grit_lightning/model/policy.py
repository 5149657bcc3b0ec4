"""The policy: log-probabilities of the completion tokens of a packed micro-batch.

Only positions that predict a completion token reach the LM head, in chunks. The memory for logits therefore grows
neither with the prompt's length nor with vocabulary × completion length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from grit_lightning.model.attention import arguments, choice_of
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.model.lm_head import HeadOptions, plain_weight, token_logprobs
from grit_lightning.model.packed_layout import PackedLayout
from grit_lightning.model.packing import PackedBatch, rotary_positions
from grit_lightning.model.tied_embedding import share_gradient

T = TypeVar("T")


class TokenLogprobs(NamedTuple):
    """Log-probability and entropy of each completion token of a micro-batch, at the sampling temperature.

    Attributes:
        logprobs_T: log π(token | prompt, earlier tokens), float32.
        entropy_T: entropy in nats of the distribution of the token, float32, without gradient; ``None`` if the policy
            was built with ``entropy=False``.
    """

    logprobs_T: Tensor
    entropy_T: Tensor | None


class Policy(nn.Module):
    """A multimodal language model as a distribution over completions.

    It is the distribution from which rollouts are sampled: the softmax of logits / temperature over the tokens that
    are not banned. During training the model is called only through ``forward``, as sharded (FSDP) modules require.

    Args:
        model: a ``…ForConditionalGeneration`` with ``base_model`` (hidden states) and ``lm_head``.
        banned_token_ids: ids of tokens that are never sampled, such as image placeholders and padding.
        temperature: the sampling temperature, > 0.
        logits_chunk: number of completion tokens per pass through the LM head.
        entropy: whether to compute entropies, for monitoring.
    """

    banned: Tensor

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        banned_token_ids: tuple[int, ...],
        temperature: float,
        logits_chunk: int,
        entropy: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        share_gradient(model)
        self.temperature = temperature
        self.logits_chunk = logits_chunk
        self.entropy = entropy
        self.register_buffer("banned", torch.tensor(banned_token_ids, dtype=torch.long), persistent=False)

    @classmethod
    def load(cls, backbone: Backbone, *, temperature: float, logits_chunk: int, entropy: bool = True) -> Policy:
        """Load a backbone's checkpoint as a policy."""
        return cls(
            backbone.load_model(),
            banned_token_ids=backbone.banned_token_ids,
            temperature=temperature,
            logits_chunk=logits_chunk,
            entropy=entropy,
        )

    def forward(self, work: PackedBatch | Callable[[PreTrainedModel], T]) -> TokenLogprobs | T:
        """Return the log-probabilities and entropies of a batch's completion tokens, or the result of a function.

        A function is called with the model. Rollouts pass one, because a sharded policy may be entered only through
        ``forward``.
        """
        return self._logprobs(work) if isinstance(work, PackedBatch) else work(self.model)

    def _logprobs(self, batch: PackedBatch) -> TokenLogprobs:
        layout = PackedLayout(batch.rows, choice_of(self.model), batch.input_ids_S.device)
        hidden_1_S_D = self.model.base_model(
            input_ids=batch.input_ids_S[None],
            position_ids=rotary_positions(batch.position_ids_A_S[:, None]),
            use_cache=False,
            **arguments(layout),
            **batch.vision,
        ).last_hidden_state
        # index_select, because the backward pass of indexing is not reproducible on a CPU.
        hidden_T_D = hidden_1_S_D[0].index_select(0, batch.source_T)
        return TokenLogprobs(*self._head(hidden_T_D, batch.target_T))

    def _head(self, hidden_T_D: Tensor, target_T: Tensor) -> tuple[Tensor, Tensor | None]:
        options = HeadOptions(self.banned, self.temperature, self.logits_chunk, self.entropy)
        weight = plain_weight(self.model.lm_head)
        if weight is not None:
            return token_logprobs(hidden_T_D, weight, target_T, options)
        # Any other head (with adapters, quantized) runs chunk by chunk, and again in the backward pass.
        pairs = zip(hidden_T_D.split(self.logits_chunk), target_T.split(self.logits_chunk), strict=True)
        chunks = [checkpoint(self._any_head, hidden, target, use_reentrant=False) for hidden, target in pairs]
        logprobs, entropies = zip(*chunks, strict=True)
        return torch.cat(logprobs), torch.cat(entropies) if self.entropy else None

    def _any_head(self, hidden_T_D: Tensor, target_T: Tensor) -> tuple[Tensor, Tensor | None]:
        logits_T_V = self.model.lm_head(hidden_T_D).float() / self.temperature
        logits_T_V = logits_T_V.index_fill(1, self.banned, -torch.inf)
        logprobs_T_V = logits_T_V.log_softmax(dim=-1)
        entropy_T = torch.special.entr(logprobs_T_V.detach().exp()).sum(dim=-1) if self.entropy else None
        return logprobs_T_V.gather(1, target_T[:, None]).squeeze(1), entropy_T
