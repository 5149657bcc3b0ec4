"""Replacement of the engine's weights by those of the policy, in place and in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import PreTrainedModel

from grit_lightning.model.whole_weights import whole_weights

if TYPE_CHECKING:
    from vllm import LLM


def take_weights(llm: LLM, model: PreTrainedModel) -> None:
    """Give a model's weights to vLLM one at a time, and forget all that it computed from its former ones.

    A sleeping engine wakes up for it. If the model is sharded, this is a collective operation.

    Args:
        llm: the engine.
        model: the policy, whose weights are not quantized.
    """
    engine = llm.llm_engine
    asleep = engine.is_sleeping()
    if asleep:
        llm.wake_up(tags=["weights"])
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": whole_weights(model)})
    llm.apply_model(_pack_embeddings)
    if asleep:
        llm.wake_up(tags=["kv_cache"])  # only now, so that a gathered weight and the cache never lie side by side
    llm.reset_prefix_cache()
    engine.reset_mm_cache()
    engine.reset_encoder_cache()


def _pack_embeddings(model: nn.Module) -> None:
    """Pack embeddings and heads again, of which vLLM's CPU kernels hold packed copies.

    vLLM packs a layer when its weights are loaded. A head that is tied to the embedding has none of its own, and would
    keep its former ones.
    """
    for layer in model.modules():
        method: Any = getattr(layer, "quant_method", None)
        if hasattr(layer, "cpu_linear") and hasattr(layer, "num_embeddings"):
            method.process_weights_after_loading(layer)
