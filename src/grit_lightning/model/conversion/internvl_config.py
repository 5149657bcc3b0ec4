"""Translation of original InternVL configs to native ones, and refusal of those that transformers cannot express."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import InternVLConfig

from grit_lightning.errors import CheckpointError

_TEMPLATE = "internvl2_5"

_VISION_FIELDS = {
    "hidden_size": ("hidden_size", 3200),
    "num_hidden_layers": ("num_hidden_layers", 48),
    "num_attention_heads": ("num_attention_heads", 25),
    "intermediate_size": ("intermediate_size", 12800),
    "num_channels": ("num_channels", 3),
    "image_size": ("image_size", 224),
    "patch_size": ("patch_size", 14),
    "hidden_act": ("hidden_act", "gelu"),
    "norm_type": ("norm_type", "rms_norm"),
    "layer_norm_eps": ("layer_norm_eps", 1e-6),
    "attention_bias": ("qkv_bias", False),
    "use_qk_norm": ("qk_normalization", True),
    "attention_dropout": ("attention_dropout", 0.0),
    "projection_dropout": ("dropout", 0.0),
    "initializer_range": ("initializer_range", 0.02),
    "layer_scale_init_value": ("initializer_factor", 0.1),
}
"""For each native field, the original field and its default in the original code.

The original stochastic depth has no native counterpart.
"""

_TEXT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "attention_dropout",
    "bos_token_id",
    "tie_word_embeddings",
)
"""Fields of the language model (Qwen2), named alike in both layouts."""

_NATIVE_QK_NORM_EPS = 1e-6


def is_original_config(config: Mapping[str, Any]) -> bool:
    """Tell whether a ``config.json`` belongs to an ``InternVLChatModel``, the original layout."""
    return config.get("model_type") == "internvl_chat" or "InternVLChatModel" in (config.get("architectures") or ())


def read_config(file: Path) -> dict[str, Any]:
    """Read a ``config.json``.

    Raises:
        CheckpointError: the file cannot be read, or is not a JSON object.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: is not a JSON object")
    return config


def require_convertible(config: Mapping[str, Any], source: Path) -> None:
    """Refuse other architectures, and settings that the native model or its processor would compute differently.

    Args:
        config: the checkpoint's ``config.json``.
        source: checkpoint folder or hub id, for error messages.

    Raises:
        CheckpointError: the config is not convertible; the message names the first reason.
    """
    if config.get("model_type") == "internvl":
        raise CheckpointError(f"{source}: is in the native layout already, there is nothing to convert")
    if not is_original_config(config):
        raise CheckpointError(f"{source}: its architecture is {_architecture(config)}, expected InternVLChatModel")
    text, vision = config.get("llm_config") or {}, config.get("vision_config") or {}
    if (language_model := _architecture(text)) not in ("Qwen2ForCausalLM", "qwen2"):
        raise CheckpointError(f"{source}: its language model is {language_model}, expected Qwen2ForCausalLM")
    if (version := config.get("ps_version", "v1")) != "v2":
        raise CheckpointError(f"{source}: ps_version is {version!r}, which transposes the image; expected 'v2'")
    if (template := config.get("template")) != _TEMPLATE:
        raise CheckpointError(f"{source}: its conversation template is {template!r}, expected {_TEMPLATE!r}")
    size, forced = _vision(vision, "image_size"), config.get("force_image_size")
    if forced not in (None, size):
        raise CheckpointError(f"{source}: force_image_size is {forced}, expected vision_config.image_size, {size}")
    eps = _vision(vision, "layer_norm_eps")
    if _vision(vision, "use_qk_norm") and eps != _NATIVE_QK_NORM_EPS:
        raise CheckpointError(
            f"{source}: vision_config.layer_norm_eps is {eps}, expected {_NATIVE_QK_NORM_EPS}, as in the native norm "
            "of queries and keys"
        )
    if max_tiles(config) > 1 and not config.get("use_thumbnail", False):
        raise CheckpointError(f"{source}: use_thumbnail is false, but the native processor always adds a thumbnail")


def max_tiles(config: Mapping[str, Any]) -> int:
    """Return the largest number of tiles per image that an original config allows."""
    return config.get("max_dynamic_patch", 6) if config.get("dynamic_image_size", False) else 1


def native_config(
    original: Mapping[str, Any], *, image_token_id: int, end_of_turn_id: int, source: Path
) -> InternVLConfig:
    """Translate a convertible original config to the native one.

    Args:
        original: config that :func:`require_convertible` accepts.
        image_token_id: id of the token that image features replace.
        end_of_turn_id: id of the token that ends generation in the original code; released configs name another one.
        source: checkpoint folder, for error messages.

    Raises:
        CheckpointError: a value is missing or of the wrong type.
    """
    text, vision = original["llm_config"], original.get("vision_config") or {}
    ratio = original.get("downsample_ratio", 0.5)
    try:
        return InternVLConfig(
            architectures=["InternVLForConditionalGeneration"],
            text_config={
                "model_type": "qwen2",
                **{name: text[name] for name in _TEXT_FIELDS if name in text},
                "eos_token_id": end_of_turn_id,
            },
            # The original tower has no norm after its last layer. use_mean_pooling removes the native one.
            vision_config={name: _vision(vision, name) for name in _VISION_FIELDS} | {"use_mean_pooling": True},
            image_token_id=image_token_id,
            image_seq_length=int((_vision(vision, "image_size") // _vision(vision, "patch_size") * ratio) ** 2),
            downsample_ratio=ratio,
            vision_feature_layer=original.get("select_layer", -1),
            # From the language model's config: the original code does not tie by its top-level value.
            tie_word_embeddings=text.get("tie_word_embeddings", False),
            dtype=original.get("torch_dtype", original.get("dtype")),
        )
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{source / 'config.json'}: is not a valid InternVL config: {reason}") from error


def _vision(config: Mapping[str, Any], native: str) -> Any:
    name, default = _VISION_FIELDS[native]
    return config.get(name, default)


def _architecture(config: Mapping[str, Any]) -> str:
    return str((config.get("architectures") or [config.get("model_type")])[0])
