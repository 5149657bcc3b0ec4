"""What differs between model families; all else of a checkpoint is :class:`.pretrained.PretrainedBackbone`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from PIL.Image import Image
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedConfig

from grit_lightning.types import Size


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """How large an image may become. A family reads what concerns it.

    Attributes:
        min_pixels: lower limit on the area of the resized image (Qwen).
        max_pixels: upper limit on the area of the resized image (Qwen).
        max_tiles: most tiles an image is cut into, its thumbnail not counted (InternVL).
    """

    min_pixels: int
    max_pixels: int
    max_tiles: int


@dataclass(frozen=True, eq=False, slots=True)
class ImageInput:
    """An image as a model reads it.

    Attributes:
        vision: what the vision tower reads, tensor by forward argument name.
        num_tokens: image tokens in the prompt.
        box_space: ``(width, height)`` of the space in which the model writes boxes for this image.
    """

    vision: Mapping[str, Tensor]
    num_tokens: int
    box_space: Size


class Family(Protocol):
    """How checkpoints of one ``model_type`` read images. Made from a checkpoint, its config and limits.

    Attributes:
        name: as in messages.
        image_token: stands for the image in the chat template.
        around_image: tokens before and after those of the image that the chat template leaves out.
        never_sampled: tokens that would ask the model for an image that is not there, or open another turn.
        parts: beginnings of the parameter names of ``vision``, ``projector`` and ``language``.
        image_processor: the checkpoint's, within the limits; without torchvision.
    """

    name: ClassVar[str]
    image_token: ClassVar[str]
    around_image: ClassVar[tuple[str, str]]
    never_sampled: ClassVar[tuple[str, ...]]
    parts: ClassVar[Mapping[str, tuple[str, ...]]]
    image_processor: BaseImageProcessor

    def __init__(self, checkpoint: str, config: PreTrainedConfig, limits: ImageLimits) -> None: ...

    def read(self, image: Image) -> ImageInput:
        """An image as the model reads it."""
        ...

    def positions(self, is_image_S: Tensor, image: ImageInput) -> Tensor:
        """Rotary positions of a prompt with one image, int64, shape (A, S).

        Args:
            is_image_S: bool, which tokens are the image's; contiguous.
            image: what :meth:`read` made of it.
        """
        ...
