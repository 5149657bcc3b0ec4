"""Settings that determine the predictions of an evaluation: equal settings give equal predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.training.checkpoint_weights import Weights
from grit_lightning.types import Sample

_MODEL_KEYS = ("min_pixels", "max_pixels", "max_tiles", "dtype", "random_weights_seed")
"""Keys of the model config, besides its weights, that influence an answer."""


def weights_identity(backbone: Backbone, run: RunFolder | None, weights: Weights | None) -> dict[str, Any]:
    """Return what distinguishes these weights from all others.

    For a run these are a hash of its manifest and the step; for a checkpoint folder, a hash of its files' names, sizes
    and modification times; for a hub id, the id alone.

    Args:
        backbone: the backbone, which names the checkpoint.
        run: the run that trained the weights; ``None`` for an untrained checkpoint.
        weights: the run's weights; ``None`` for the checkpoint's own.
    """
    source = Path(backbone.checkpoint)
    identity: dict[str, Any] = {"checkpoint": source.name if source.is_dir() else backbone.checkpoint}
    if run is not None and weights is not None:
        return identity | {"run": _short_hash(run.manifest_file.read_bytes()), "step": weights.step}
    if source.is_dir():
        files = [(file.name, file.stat()) for file in sorted(source.iterdir()) if file.is_file()]
        of_files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files]
        identity["files"] = _short_hash("\n".join(of_files).encode())
    return identity


def model_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image limits, weight dtype, random seed and precision that the model computes with."""
    return {
        "model": {key: values["model"][key] for key in _MODEL_KEYS},
        "precision": values["trainer"]["precision"],
    }


def data_settings(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the names of the data sets, the number of samples, and a hash of their texts, boxes and image names."""
    fields = [
        (one.id, one.dataset, one.question, one.answer, one.image.name, one.size, one.boxes, *_more(one))
        for one in samples
    ]
    return {
        "datasets": sorted({sample.dataset for sample in samples}),
        "samples": len(samples),
        "sha256": _short_hash(repr(fields).encode()),
    }


def _more(sample: Sample) -> tuple[Any, ...]:
    """Return what few samples have, so that the hash of the others stays as it was: more images, and options."""
    more = [(image.path.name, image.size) for image in sample.images[1:]]
    return (more, [region.image for region in sample.regions], sample.options) if more or sample.options else ()


def _short_hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
