"""Conversion of InternVL3 and InternVL2.5 checkpoints from the released layout to the native one of transformers.

A checkpoint of ``InternVLChatModel`` ships its own Python code, which is not run here. The native model,
``InternVLForConditionalGeneration``, computes the same function. Only the weights differ in form: they have other
names, and the original vision tower stores queries, keys and values in one matrix (github.com/OpenGVLab/InternVL,
``internvl_chat/internvl/model``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import GenerationConfig, GotOcr2ImageProcessorPil, InternVLConfig

from grit_lightning.errors import CheckpointError
from grit_lightning.model.conversion.internvl_config import max_tiles, native_config, read_config, require_convertible
from grit_lightning.model.conversion.internvl_tokenizer import END_OF_TURN, IMAGE_TOKEN, native_tokenizer
from grit_lightning.model.conversion.internvl_weights import plan
from grit_lightning.model.conversion.safetensors_files import INDEX, StoredTensor, find_files, write_stored
from grit_lightning.system.files import replacing_folder

_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def convert(source: Path, target: Path) -> None:
    """Write a checkpoint in the original layout as a native one, with bit-identical weights.

    Everything is checked before the first byte is written, and ``target`` appears only when it is complete.

    Args:
        source: folder with ``config.json``, safetensors files and tokenizer files.
        target: folder to create; it may already exist if it is empty.

    Raises:
        CheckpointError: the source is incomplete, in another layout, or not expressible in transformers; or the target
            cannot be written.
    """
    original = read_config(source / "config.json")
    require_convertible(original, source)
    tokenizer = native_tokenizer(source, original.get("system_message"))
    end_of_turn = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    config = native_config(
        original,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        end_of_turn_id=end_of_turn,
        source=source,
    )
    weights = plan(config, find_files(source), source)
    generation = GenerationConfig(eos_token_id=[end_of_turn], pad_token_id=tokenizer.pad_token_id)
    try:
        with replacing_folder(target.resolve()) as folder:
            _write_weights(weights, folder)
            for part in (config, tokenizer, generation, _image_processor(config, max_tiles(original))):
                part.save_pretrained(folder)
            write_processors(config, folder)
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error} ({error.filename})") from error


def _write_weights(weights: Mapping[str, Mapping[str, StoredTensor]], folder: Path) -> None:
    total = sum(tensor.size for tensors in weights.values() for tensor in tensors.values())
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for file, tensors in weights.items():
            bar.set_description(f"converting {file}")
            write_stored(folder / file, tensors, bar.update)
    if len(weights) > 1:
        places = {name: file for file, tensors in weights.items() for name in tensors}
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _image_processor(config: InternVLConfig, tiles: int) -> GotOcr2ImageProcessorPil:
    return GotOcr2ImageProcessorPil(
        size=_size(config),
        image_mean=_IMAGENET_MEAN,
        image_std=_IMAGENET_STD,
        crop_to_patches=tiles > 1,
        min_patches=1,
        max_patches=tiles,
    )


def write_processors(config: InternVLConfig, folder: Path) -> None:
    """Write the configs that the native processor reads beside the image processor's, unless the folder has them.

    They are written as plain JSON, because the processor's classes need torchvision.
    """
    values: dict[str, dict[str, object]] = {
        "processor_config.json": {
            "processor_class": "InternVLProcessor",
            "image_seq_length": config.image_seq_length,
        },
        "video_preprocessor_config.json": {
            "video_processor_type": "InternVLVideoProcessor",
            "size": _size(config),
            "image_mean": _IMAGENET_MEAN,
            "image_std": _IMAGENET_STD,
        },
    }
    for name, content in values.items():
        if not (folder / name).exists():
            _write_json(folder / name, content)


def _size(config: InternVLConfig) -> dict[str, int]:
    height, width = config.vision_config.image_size
    return {"height": height, "width": width}


def _write_json(file: Path, values: Mapping[str, object]) -> None:
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
