"""Loads a sample's image: fully decoded, in RGB, and of the size that its record declares."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps

from grit_lightning.errors import DataError
from grit_lightning.system.files import require_regular
from grit_lightning.types import ImageFile, Sample, Size

MAX_ASPECT_RATIO = 200
"""Maximum ratio of the longer to the shorter side. Qwen2-VL's ``smart_resize`` rejects more extreme images."""


def load_images(sample: Sample) -> list[Image.Image]:
    """Return all images of a sample, in its order; see :func:`load_image`."""
    return [load_image(image, sample.source) for image in sample.images]


def load_image(image: ImageFile, source: str, file: Path | None = None) -> Image.Image:
    """Return an image as 8-bit RGB, of exactly its declared size in original pixels.

    The EXIF orientation is applied only if the stored image does not have the declared size and the rotated image
    does: boxes refer to the declared size, and most annotations (COCO's included) were made on the stored pixels.
    Transparent pixels become white. Only the first frame of an animation is read.

    Args:
        image: the image; error messages name its path.
        source: ``file:line`` of its sample, for error messages.
        file: file to read in place of ``image.path``; ``None`` to read that.

    Raises:
        DataError: the file is missing or no regular file, cannot be decoded to the end, has more than 8 bits per
            channel or too many pixels, has a different size than declared, or has an aspect ratio above
            ``MAX_ASPECT_RATIO``.
    """
    pixels = _decoded(file or image.path, image.path, source)
    if pixels.size != image.size:
        pixels = _upright(pixels, image.size)
    width, height = pixels.size
    if (width, height) != image.size:
        raise DataError(
            f"image {image.path} is {width} × {height} px, but fields 'width' and 'height' declare "
            f"{image.size[0]} × {image.size[1]} px",
            source,
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise DataError(
            f"image {image.path} is {width} × {height} px; expected an aspect ratio of at most {MAX_ASPECT_RATIO}",
            source,
        )
    return _rgb(pixels, image.path, source)


def _decoded(file: Path, path: Path, source: str) -> Image.Image:
    try:
        require_regular(file)
    except DataError as error:
        raise DataError(f"image {path} is not a regular file", source) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about unusual metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # too many pixels
            image = Image.open(file)
            with image:
                image.load()
                return image
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist", source) from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} has too many pixels to be read safely ({error})", source) from error
    except Exception as error:  # Pillow's decoders raise almost anything on malformed bytes
        raise DataError(f"image {path} cannot be decoded ({error or type(error).__name__})", source) from error


def _upright(image: Image.Image, declared: Size) -> Image.Image:
    """Return the image rotated by its EXIF orientation if that gives the declared size, otherwise unchanged."""
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF: the caller then reports the wrong size
        return image
    return turned if turned.size == declared else image


def _rgb(image: Image.Image, path: Path, source: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(f"image {path} has pixels of mode {image.mode}; expected 8 bits per channel", source)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
