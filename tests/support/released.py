"""Tiny random checkpoints with the files, names and fields of the released ones, for each family."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    InternVLConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    Qwen3VLConfig,
)

from grit_lightning.system.paths import conf_dir

TINY = conf_dir().parent / "src" / "grit_lightning" / "assets" / "tiny"

IMAGE_MEAN, IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Chat template of Qwen3-VL and InternVL3 for a user's turn; neither adds a system message."""


def tokenizer(image: str, *more: str) -> PreTrainedTokenizerBase:
    """Return the bundled tokenizer with further special tokens and a template that renders an image as ``image``."""
    made = AutoTokenizer.from_pretrained(TINY)
    made.add_tokens(list(more), special_tokens=True)
    made.chat_template = TURNS.replace("IMAGE", image)
    return made


def text_config(made: PreTrainedTokenizerBase, **more: Any) -> dict[str, Any]:
    return {
        # Padded beyond the tokenizer, as in the released ones.
        "vocab_size": (len(made) // 64 + 1) * 64,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "eos_token_id": made.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": made.pad_token_id,
        **more,
    }


def write(folder: Path, config: PreTrainedConfig, made: PreTrainedTokenizerBase, files: dict[str, Any]) -> Path:
    """Write a checkpoint folder with random weights; norms of 1 and biases of 0 would hide mistakes."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2))
    return folder


def qwen3_vl(folder: Path) -> Path:
    """Write a tiny checkpoint in the layout of Qwen/Qwen3-VL-4B-Instruct."""
    made = tokenizer("<|vision_start|><|image_pad|><|vision_end|>", "<tool_response>")
    token = made.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config=text_config(
            made,
            head_dim=32,  # not hidden_size / num_attention_heads, as in the released ones
            rope_parameters={
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [6, 5, 5], "mrope_interleaved": True,
            },
        ),
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
            "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )  # fmt: skip
    images = {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    return write(
        folder,
        config,
        made,
        {
            "preprocessor_config.json": {**images, "image_processor_type": "Qwen2VLImageProcessorFast"},
            "video_preprocessor_config.json": {**images, "video_processor_type": "Qwen3VLVideoProcessor"},
            "generation_config.json": {
                "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.0,
                "eos_token_id": [made.eos_token_id, made.pad_token_id], "pad_token_id": made.pad_token_id,
            },
        },
    )  # fmt: skip


def internvl(folder: Path) -> Path:
    """Write a tiny checkpoint in the layout of OpenGVLab/InternVL3-2B-hf."""
    made = tokenizer(
        "<IMG_CONTEXT>\n", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>"
    )
    made.save_pretrained(folder)
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    made = AutoTokenizer.from_pretrained(folder, extra_special_tokens=named)
    config = InternVLConfig(
        text_config=text_config(made, model_type="qwen2", rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": [56, 56], "patch_size": [14, 14], "attention_bias": True,
        },
        image_token_id=made.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    images = {
        "crop_to_patches": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": IMAGE_MEAN,
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "image_std": IMAGE_STD,
        "max_patches": 12,
        "min_patches": 1,
        "processor_class": "InternVLProcessor",
        "size": {"height": 56, "width": 56},
    }
    return write(
        folder,
        config,
        made,
        {
            "preprocessor_config.json": images,
            "processor_config.json": {"image_seq_length": 4, "processor_class": "InternVLProcessor"},
        },
    )


def full_size(folder: Path, text: dict[str, Any], vision: dict[str, Any], source: Path, **more: Any) -> Path:
    """Write a folder with the sizes of a real checkpoint, the other files of a tiny one, and no weights."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text()) | more
    config["text_config"].pop("layer_types", None)  # one for each layer, all the same
    config["text_config"] |= text
    config["vision_config"] |= vision
    (folder / "config.json").write_text(json.dumps(config))
    return folder


QWEN2_5_VL_3B = {
    "text": {
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip
"""Sizes from config.json of Qwen/Qwen2.5-VL-3B-Instruct."""

QWEN2_5_VL_7B = {
    "text": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision": {**QWEN2_5_VL_3B["vision"], "out_hidden_size": 3584},
    "tie_word_embeddings": False,
}  # fmt: skip
"""Sizes from config.json of Qwen/Qwen2.5-VL-7B-Instruct."""

QWEN3_VL_4B = {
    "text": {
        "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True,
        },
    },
    "vision": {
        "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2560,
        "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17],
    },
}  # fmt: skip
"""Sizes from config.json of Qwen/Qwen3-VL-4B-Instruct."""

INTERNVL3_2B = {
    "text": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151674,
    },
    "vision": {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": [448, 448],
    },
    "image_seq_length": 256,
}  # fmt: skip
"""Sizes from config.json of OpenGVLab/InternVL3-2B-hf."""


MAKERS: dict[str, Callable[[Path], Path]] = {"qwen3_vl": qwen3_vl, "internvl": internvl}
