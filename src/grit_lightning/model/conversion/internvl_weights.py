"""Mapping from native tensors to the files and tensors of an original InternVL checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

from grit_lightning.errors import CheckpointError
from grit_lightning.model.conversion.safetensors_files import StoredTensor, read_stored

_NATIVE_TO_ORIGINAL = (
    ("model.vision_tower.", "vision_model."),
    (".encoder.layer.", ".encoder.layers."),
    (".cls_token", ".class_embedding"),
    (".position_embeddings", ".position_embedding"),
    (".patch_embeddings.projection.", ".patch_embedding."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".lambda_1", ".ls1"),
    (".lambda_2", ".ls2"),
    (".attention.projection_layer.", ".attn.proj."),
    (".attention.", ".attn."),
    ("model.multi_modal_projector.layer_norm.", "mlp1.0."),
    ("model.multi_modal_projector.linear_1.", "mlp1.1."),
    ("model.multi_modal_projector.linear_2.", "mlp1.3."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
"""Replacements ``(native, original)`` that turn a native name into the original one, applied in this order."""

_FUSED = (".attn.q_proj.", ".attn.k_proj.", ".attn.v_proj.")
"""Parts of the original ``.attn.qkv.`` tensor, in their order along its first axis."""

_HEAD = "lm_head.weight"


def plan(config: InternVLConfig, files: Sequence[Path], source: Path) -> dict[str, dict[str, StoredTensor]]:
    """Locate the bytes of each native tensor in the original files.

    Each original file becomes one native file.

    Args:
        config: the native config.
        files: original weight files.
        source: checkpoint folder, for error messages.

    Returns:
        For each native file name, the stored tensors by the names they get in it, in the order of their bytes.

    Raises:
        CheckpointError: a file is truncated, or tensors are missing, left over, or of another shape than the config's.
    """
    stored = {name: tensor for file in files for name, tensor in read_stored(file).items()}
    tensors = _native_tensors(config, stored, source)
    by_file: dict[str, dict[str, StoredTensor]] = {}
    for number, file in enumerate(files, 1):
        here = {name: tensor for name, tensor in tensors.items() if tensor.file == file}
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        by_file[name] = dict(sorted(here.items(), key=lambda item: item[1].begin))
    return by_file


def _native_tensors(
    config: InternVLConfig, stored: Mapping[str, StoredTensor], source: Path
) -> dict[str, StoredTensor]:
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    unread = set()
    if config.tie_word_embeddings:
        # The head is the embedding. If the checkpoint stores a head as well, the original code does not read it either.
        del shapes[_HEAD]
        unread = {_origin(_HEAD)[0]}
    origins = {name: _origin(name) for name in shapes}
    wanted = {original for original, _ in origins.values()}
    if missing := wanted - stored.keys():
        raise CheckpointError(f"{source}: its weights lack {_summary(missing)}")
    if left_over := stored.keys() - wanted - unread:
        raise CheckpointError(f"{source}: its config.json has no place for these weights: {_summary(left_over)}")
    tensors = {}
    for name, (original, part) in origins.items():
        tensor, (first, *rest) = stored[original], shapes[name]
        if tensor.shape != (first if part is None else first * len(_FUSED), *rest):
            raise CheckpointError(f"{source}: {original} has shape {tensor.shape}, which does not fit its config.json")
        tensors[_name_on_disk(name)] = tensor if part is None else tensor.part(part, len(_FUSED))
    return tensors


def _origin(native: str) -> tuple[str, int | None]:
    """Return the original tensor that holds a native one, and which third of it; ``None`` if it is the whole tensor."""
    original = native
    for new, old in _NATIVE_TO_ORIGINAL:
        original = original.replace(new, old)
    for part, name in enumerate(_FUSED):
        if name in original:
            return original.replace(name, ".attn.qkv."), part
    return original, None


def _name_on_disk(native: str) -> str:
    """Return the name that transformers saves a tensor under; for the language model it is the original name."""
    if native.startswith(("model.language_model.", "lm_head.")):
        return _origin(native)[0]
    return native.removeprefix("model.")


def _summary(names: set[str]) -> str:
    return min(names) if len(names) == 1 else f"{len(names)} tensors, for example {min(names)}"
