"""A small InternVL in the released layout: its files, and its computation in plain torch.

The files have the names and fields of ``OpenGVLab/InternVL3-2B-Instruct``. The computation follows the published
description (arXiv 2312.14238 and 2404.16821 for the vision tower, pixel shuffle and projector; arXiv 2407.10671 for
Qwen2), tensor by tensor from the file, and shares no code with transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from grit_lightning.system.paths import conf_dir

TINY = conf_dir().parent / "src" / "grit_lightning" / "assets" / "tiny"

QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
QWEN_ORDINARY = (
    "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip
INTERNVL = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
ADDED = (*QWEN_SPECIAL, *QWEN_ORDINARY, *INTERNVL)
BASE_VOCABULARY = 491
VOCABULARY = BASE_VOCABULARY + len(ADDED)
SYSTEM_MESSAGE = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


def token_id(token: str) -> int:
    return BASE_VOCABULARY + ADDED.index(token)


def config() -> dict[str, Any]:
    """Return the values of the released ``config.json`` with smaller sizes."""
    return {
        "_commit_hash": None,
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
        },
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 56,
        "hidden_size": 48,
        "image_fold": None,
        "llm_config": {
            "_attn_implementation_autoset": True,
            "_name_or_path": "./pretrained/Qwen2.5-32B-Instruct",
            "architectures": ["Qwen2ForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|endoftext|>"),
            "hidden_act": "silu",
            "hidden_size": 48,
            "initializer_range": 0.02,
            "intermediate_size": 80,
            "max_position_embeddings": 32768,
            "max_window_layers": 70,
            "model_type": "qwen2",
            "moe_config": None,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06,
            "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
            "rope_theta": 1000000.0,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "use_bfloat16": True,
            "use_cache": False,
            "use_sliding_window": False,
            "vocab_size": VOCABULARY,
        },
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "output_attentions": False,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": -1,
        "system_message": None,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": None,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": {
            "_name_or_path": "OpenGVLab/InternViT-6B-448px-V1-5",
            "architectures": ["InternVisionModel"],
            "attention_dropout": 0.0,
            "auto_map": {
                "AutoConfig": "configuration_intern_vit.InternVisionConfig",
                "AutoModel": "modeling_intern_vit.InternVisionModel",
            },
            "capacity_factor": 1.2,
            "drop_path_rate": 0.1,
            "dropout": 0.0,
            "eval_capacity_factor": 1.4,
            "hidden_act": "gelu",
            "hidden_size": 32,
            "image_size": 56,
            "initializer_factor": 0.1,
            "initializer_range": 1e-10,
            "intermediate_size": 72,
            "laux_allreduce": "all_nodes",
            "layer_norm_eps": 1e-06,
            "model_type": "intern_vit_6b",
            "moe_coeff_ratio": 0.5,
            "moe_intermediate_size": 768,
            "moe_output_scale": 4.0,
            "noisy_gate_policy": "RSample_before",
            "norm_type": "layer_norm",
            "num_attention_heads": 4,
            "num_channels": 3,
            "num_experts": 8,
            "num_hidden_layers": 3,
            "num_routed_experts": 4,
            "num_shared_experts": 4,
            "patch_size": 14,
            "qk_normalization": False,
            "qkv_bias": True,
            "shared_expert_intermediate_size": 3072,
            "torch_dtype": "bfloat16",
            "use_bfloat16": True,
            "use_flash_attn": True,
            "use_moe": False,
            "use_residual": True,
            "use_rts": False,
            "use_weighted_residual": False,
        },
    }


def shapes(values: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its released name; a tied language model saves no head."""
    text, vision = values["llm_config"], values["vision_config"]
    d, inner, side = vision["hidden_size"], vision["intermediate_size"], vision["image_size"] // vision["patch_size"]
    named: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, d),
        "vision_model.embeddings.position_embedding": (1, side * side + 1, d),
        "vision_model.embeddings.patch_embedding.weight": (d, 3, vision["patch_size"], vision["patch_size"]),
        "vision_model.embeddings.patch_embedding.bias": (d,),
    }
    for i in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{i}."
        named |= {layer + name: (d,) for name in ("ls1", "ls2", "norm1.weight", "norm2.weight")}
        if vision["norm_type"] == "layer_norm":
            named |= {layer + name: (d,) for name in ("norm1.bias", "norm2.bias")}
        named |= {layer + "attn.qkv.weight": (3 * d, d)}
        named |= {layer + "attn.proj.weight": (d, d), layer + "attn.proj.bias": (d,)}
        named |= {layer + "mlp.fc1.weight": (inner, d), layer + "mlp.fc1.bias": (inner,)}
        named |= {layer + "mlp.fc2.weight": (d, inner), layer + "mlp.fc2.bias": (d,)}
        if vision["qkv_bias"]:
            named |= {layer + "attn.qkv.bias": (3 * d,)}
        if vision["qk_normalization"]:
            named |= {layer + "attn.q_norm.weight": (d,), layer + "attn.k_norm.weight": (d,)}
    h, inner, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    kv = h // heads * text["num_key_value_heads"]
    named |= {"mlp1.0.weight": (4 * d,), "mlp1.0.bias": (4 * d,)}
    named |= {"mlp1.1.weight": (h, 4 * d), "mlp1.1.bias": (h,), "mlp1.3.weight": (h, h), "mlp1.3.bias": (h,)}
    named |= {"language_model.model.embed_tokens.weight": (text["vocab_size"], h)}
    for i in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{i}."
        for name, rows in (("q", h), ("k", kv), ("v", kv)):
            named |= {f"{layer}self_attn.{name}_proj.weight": (rows, h), f"{layer}self_attn.{name}_proj.bias": (rows,)}
        named |= {layer + "self_attn.o_proj.weight": (h, h), layer + "mlp.down_proj.weight": (h, inner)}
        named |= {layer + "mlp.gate_proj.weight": (inner, h), layer + "mlp.up_proj.weight": (inner, h)}
        named |= {layer + "input_layernorm.weight": (h,), layer + "post_attention_layernorm.weight": (h,)}
    named |= {"language_model.model.norm.weight": (h,)}
    if not text["tie_word_embeddings"]:
        named |= {"language_model.lm_head.weight": (text["vocab_size"], h)}
    return named


def random_weights(values: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return random weights, all far from their neutral values, so that a lost weight changes the logits."""
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, shape: tuple[int, ...]) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            return noise * 0.3 + (0.0 if name.endswith("bias") else 1.0)
        return noise * 1.5 * shape[-1] ** -0.5

    return {name: draw(name, shape).to(dtype) for name, shape in shapes(values).items()}


def write(folder: Path, values: dict[str, Any], weights: dict[str, Tensor], shards: int = 1) -> Path:
    """Write a checkpoint folder with the files of a released one and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=2))
    (folder / "modeling_internvl_chat.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "configuration_internvl_chat.py").write_text("raise SystemExit('remote code was run')\n")
    write_tokenizer(folder)
    names = sorted(weights)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    numbers = {name: i * shards // len(names) + 1 for i, name in enumerate(names)}
    files = {name: f"model-{number:05d}-of-{shards:05d}.safetensors" for name, number in numbers.items()}
    for file in set(files.values()):
        held = {name: weights[name] for name in names if files[name] == file}
        save_file(held, folder / file, metadata={"format": "pt"})
    index = {"metadata": {"total_size": sum(value.nbytes for value in weights.values())}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> None:
    """Write the tokenizer files of a released checkpoint: those of a slow Qwen2 tokenizer, and Qwen's chat template."""
    model = json.loads((TINY / "tokenizer.json").read_text())["model"]
    assert len(model["vocab"]) == BASE_VOCABULARY
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special = {
        "additional_special_tokens": list(QWEN_SPECIAL[1:]),
        "eos_token": {"content": "<|im_end|>", **plain},
        "pad_token": {"content": "<|endoftext|>", **plain},
    }
    tokenizer = {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token_id(token)): {"content": token, **plain, "special": token not in QWEN_ORDINARY} for token in ADDED
        },
        "additional_special_tokens": list(QWEN_SPECIAL[1:]),
        "bos_token": None,
        "chat_template": "{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud.' }}",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "extra_special_tokens": {},
        "model_max_length": 12288,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "added_tokens.json").write_text(json.dumps({token: token_id(token) for token in sorted(ADDED)}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


def conversation(question: str, image_tokens: int) -> str:
    """Return the text of the released template ``internvl2_5`` for one image and a question, up to the answer."""
    image = f"<img>{'<IMG_CONTEXT>' * image_tokens}</img>\n"
    turns = f"<|im_start|>user\n{image}{question}<|im_end|>\n<|im_start|>assistant\n"
    return f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n{turns}"


def logits(values: dict[str, Any], weights: dict[str, Tensor], pixels: Tensor, ids: Tensor) -> Tensor:
    """Return the next-token logits of a sequence, shape (length, vocabulary).

    Args:
        values: the config.
        weights: by their released names.
        pixels: shape (tiles, 3, side, side).
        ids: shape (length,); image placeholders are filled with the features in order.
    """
    text, w = values["llm_config"], weights
    hidden = w["language_model.model.embed_tokens.weight"][ids]
    hidden[ids == token_id("<IMG_CONTEXT>")] = projected(values, w, vision_tower(values, w, pixels))
    cos, sin = rotary(text, len(ids))
    for i in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{i}."
        eps = text["rms_norm_eps"]
        normed = rms_norm(hidden, w[layer + "input_layernorm.weight"], eps)
        hidden = hidden + causal_attention(text, w, layer + "self_attn.", normed, cos, sin)
        normed = rms_norm(hidden, w[layer + "post_attention_layernorm.weight"], eps)
        gate = F.silu(normed @ w[layer + "mlp.gate_proj.weight"].T)
        hidden = hidden + (gate * (normed @ w[layer + "mlp.up_proj.weight"].T)) @ w[layer + "mlp.down_proj.weight"].T
    hidden = rms_norm(hidden, w["language_model.model.norm.weight"], text["rms_norm_eps"])
    tied = text["tie_word_embeddings"]
    return hidden @ w["language_model.model.embed_tokens.weight" if tied else "language_model.lm_head.weight"].T


def vision_tower(values: dict[str, Any], w: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """Return patch features of the selected layer, without the class token, shape (tiles, patches, channels)."""
    vision = values["vision_config"]
    eps, embeddings = vision["layer_norm_eps"], "vision_model.embeddings."
    patches = F.conv2d(
        pixels,
        w[embeddings + "patch_embedding.weight"],
        w[embeddings + "patch_embedding.bias"],
        stride=vision["patch_size"],
    )
    tokens = patches.flatten(2).transpose(1, 2)
    hidden = torch.cat([w[embeddings + "class_embedding"].expand(len(pixels), 1, -1), tokens], dim=1)
    hidden = hidden + w[embeddings + "position_embedding"]
    states = [hidden]

    def norm(value: Tensor, name: str) -> Tensor:
        if vision["norm_type"] == "rms_norm":
            return rms_norm(value, w[f"{name}.weight"], eps)
        return F.layer_norm(value, value.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    for i in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{i}."
        mixed = full_attention(vision, w, layer + "attn.", norm(hidden, layer + "norm1"))
        hidden = hidden + mixed * w[layer + "ls1"]
        inner = F.gelu(F.linear(norm(hidden, layer + "norm2"), w[layer + "mlp.fc1.weight"], w[layer + "mlp.fc1.bias"]))
        hidden = hidden + F.linear(inner, w[layer + "mlp.fc2.weight"], w[layer + "mlp.fc2.bias"]) * w[layer + "ls2"]
        states.append(hidden)
    return states[values["select_layer"]][:, 1:]


def full_attention(vision: dict[str, Any], w: dict[str, Tensor], name: str, hidden: Tensor) -> Tensor:
    tiles, length, d = hidden.shape
    fused = F.linear(hidden, w[name + "qkv.weight"], w.get(name + "qkv.bias"))
    query, key, value = fused[..., :d], fused[..., d : 2 * d], fused[..., 2 * d :]
    if vision["qk_normalization"]:  # over all heads at once
        query = rms_norm(query, w[name + "q_norm.weight"], vision["layer_norm_eps"])
        key = rms_norm(key, w[name + "k_norm.weight"], vision["layer_norm_eps"])
    heads = vision["num_attention_heads"]
    query, key, value = (x.reshape(tiles, length, heads, d // heads).transpose(1, 2) for x in (query, key, value))
    weights = ((query @ key.transpose(-1, -2)) / (d // heads) ** 0.5).softmax(dim=-1)
    mixed = (weights @ value).transpose(1, 2).reshape(tiles, length, d)
    return F.linear(mixed, w[name + "proj.weight"], w[name + "proj.bias"])


def projected(values: dict[str, Any], w: dict[str, Tensor], features: Tensor) -> Tensor:
    """Return image features in the space of the language model, shape (tiles · tokens, hidden).

    Pixel shuffle, version 2: the four patches of a 2 × 2 square become one token, row by row (arXiv 2404.16821 §3.1).
    """
    assert values["downsample_ratio"] == 0.5
    side = int(features.shape[1] ** 0.5)
    rows = features.reshape(len(features), side, side, -1)
    tokens = [
        torch.cat([rows[tile, r, c], rows[tile, r, c + 1], rows[tile, r + 1, c], rows[tile, r + 1, c + 1]])
        for tile in range(len(features))
        for r in range(0, side, 2)
        for c in range(0, side, 2)
    ]
    stacked = torch.stack(tokens)
    normed = F.layer_norm(stacked, stacked.shape[-1:], w["mlp1.0.weight"], w["mlp1.0.bias"])
    inner = F.gelu(F.linear(normed, w["mlp1.1.weight"], w["mlp1.1.bias"]))
    return F.linear(inner, w["mlp1.3.weight"], w["mlp1.3.bias"])


def causal_attention(
    text: dict[str, Any], w: dict[str, Tensor], name: str, hidden: Tensor, cos: Tensor, sin: Tensor
) -> Tensor:
    """Return causal grouped-query attention, in which consecutive query heads share a key and value head."""
    length, d = hidden.shape
    heads, groups = text["num_attention_heads"], text["num_key_value_heads"]
    query, key, value = (
        F.linear(hidden, w[f"{name}{part}_proj.weight"], w[f"{name}{part}_proj.bias"]).reshape(length, -1, d // heads)
        for part in "qkv"
    )
    query, key = rotated(query, cos, sin), rotated(key, cos, sin)
    mask = torch.full((length, length), -torch.inf).triu(1)
    out = []
    for head in range(heads):
        shared = head * groups // heads
        scores = query[:, head] @ key[:, shared].T / (d // heads) ** 0.5 + mask
        out.append(scores.softmax(dim=-1) @ value[:, shared])
    return torch.cat(out, dim=-1) @ w[name + "o_proj.weight"].T


def rotary(text: dict[str, Any], length: int) -> tuple[Tensor, Tensor]:
    """Return rotary cosines and sines, shape (length, head / 2); dynamic NTK beyond the trained length."""
    size, base = text["hidden_size"] // text["num_attention_heads"], text["rope_theta"]
    trained, factor = text["max_position_embeddings"], text["rope_scaling"]["factor"]
    if length > trained:
        base = base * (factor * length / trained - (factor - 1)) ** (size / (size - 2))
    frequencies = base ** (-torch.arange(0, size, 2) / size)
    angles = torch.arange(length)[:, None] * frequencies
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of a channel of the first half and one of the second half by the angle of its position."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight
