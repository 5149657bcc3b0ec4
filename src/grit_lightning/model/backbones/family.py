"""Interface of a model family: image processing, image tokens, rotary positions and box coordinates.

Everything else about a checkpoint is handled by :class:`.pretrained.PretrainedBackbone`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from PIL.Image import Image
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedConfig

from grit_lightning.types import Size


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on the size of a processed image. Each family uses only those that apply to it.

    Attributes:
        min_pixels: smallest area of the resized image, in pixels (Qwen).
        max_pixels: largest area of the resized image, in pixels (Qwen).
        max_tiles: largest number of tiles an image is cut into, not counting its thumbnail (InternVL).
    """

    min_pixels: int
    max_pixels: int
    max_tiles: int


@dataclass(frozen=True, eq=False, slots=True)
class ImageInput:
    """One image, preprocessed for a model.

    Attributes:
        vision: inputs of the vision tower, keyed by the argument names of the model's ``forward``.
        num_tokens: number of image tokens in the prompt.
        box_space: ``(width, height)`` of the coordinate space in which the model writes boxes for this image.
    """

    vision: Mapping[str, Tensor]
    num_tokens: int
    box_space: Size


class Family(Protocol):
    """Image handling shared by all checkpoints of one ``model_type``.

    A family is built from a checkpoint's folder, its config and the image limits.

    Attributes:
        name: name of the family in messages.
        image_token: placeholder of an image in the chat template.
        around_image: tokens directly before and after an image's tokens that the chat template leaves out; empty
            strings if there are none.
        never_sampled: tokens excluded from sampling, because they announce an image that does not exist or open
            another turn.
        untrained_tokens: added tokens that the family's models never learned to write, unless the chat template uses
            them; they are written as plain text.
        parts: parameter name prefixes of ``vision``, ``projector`` and ``language``.
        image_processor: image processor of the checkpoint, set to the image limits; it works without torchvision.
    """

    name: ClassVar[str]
    image_token: ClassVar[str]
    around_image: ClassVar[tuple[str, str]]
    never_sampled: ClassVar[tuple[str, ...]]
    untrained_tokens: ClassVar[tuple[str, ...]]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]
    image_processor: BaseImageProcessor

    def __init__(self, folder: Path, config: PreTrainedConfig, limits: ImageLimits) -> None: ...

    def read(self, image: Image) -> ImageInput:
        """Preprocess an image for the model."""
        ...

    def positions(self, is_image_S: Tensor, images: Sequence[ImageInput]) -> Tensor:
        """Return the rotary positions of a prompt, int64, shape (A, S): A axes, S tokens.

        Args:
            is_image_S: bool, shape (S,), true for the image tokens; those of one image are contiguous.
            images: the preprocessed images in the order of the prompt, from :meth:`read`.
        """
        ...
