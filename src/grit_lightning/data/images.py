"""Loads a sample's image: fully decoded, in RGB, and of the size that its record declares."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from grit_lightning.errors import DataError
from grit_lightning.system.files import require_regular
from grit_lightning.types import ImageFile, Sample, Size

# Pillow warns of unusual metadata, which is no problem, and of many pixels, which are refused below. The filter holds
# for the whole process, because images are read by several threads, which share the filters.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

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
    with _opened(file or image.path, image.path, source) as pixels:
        pixels.load()
    if pixels.size != image.size:
        pixels = _upright(pixels, image.size)
    _require_size(image, pixels.size, source)
    return _rgb(pixels, image.path, source)


def check_header(image: ImageFile, source: str) -> None:
    """Check what can be known of an image without decoding it: its kind, and its size before or after rotation.

    Args:
        image: the image.
        source: ``file:line`` of its sample, for error messages.

    Raises:
        DataError: as :func:`load_image`, except for pixels that cannot be decoded.
    """
    with _opened(image.path, image.path, source) as header:
        size = header.size
        if size != image.size and size[::-1] == image.size:
            size = _upright_size(header)
        _require_size(image, size, source)


def has_too_many_pixels(size: Size) -> bool:
    """Tell whether an image is too large to be decoded safely, by Pillow's limit."""
    return size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or math.inf)


def is_too_narrow(size: Size) -> bool:
    """Tell whether the aspect ratio exceeds ``MAX_ASPECT_RATIO``."""
    return max(size) > MAX_ASPECT_RATIO * min(size)


def is_deep(mode: str) -> bool:
    """Tell whether Pillow's mode has more than 8 bits per channel."""
    return mode.startswith(("I", "F"))


@contextmanager
def _opened(file: Path, path: Path, source: str) -> Iterator[Image.Image]:
    """Open an image whose pixels are not yet decoded; turn what Pillow raises in the block into a DataError."""
    try:
        require_regular(file)
    except DataError as error:
        raise DataError(f"image {path} is not a regular file", source) from error
    try:
        with Image.open(file) as image:
            if has_too_many_pixels(image.size):
                raise Image.DecompressionBombError(f"{image.width} × {image.height} px")
            yield image
    except FileNotFoundError:
        raise DataError(f"image {path} does not exist", source) from None
    except Image.DecompressionBombError as error:
        raise DataError(f"image {path} has too many pixels to be read safely ({error})", source) from error
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise almost anything on malformed bytes
        raise DataError(f"image {path} cannot be decoded ({error or type(error).__name__})", source) from error


def _require_size(image: ImageFile, size: Size, source: str) -> None:
    width, height = size
    if size != image.size:
        raise DataError(
            f"image {image.path} is {width} × {height} px, but fields 'width' and 'height' declare "
            f"{image.size[0]} × {image.size[1]} px",
            source,
        )
    if is_too_narrow(size):
        raise DataError(
            f"image {image.path} is {width} × {height} px; expected an aspect ratio of at most {MAX_ASPECT_RATIO}",
            source,
        )


def _upright_size(image: Image.Image) -> Size:
    """Return the size after the rotation that the EXIF orientation asks for."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
    except Exception:  # unreadable EXIF: the caller then reports the wrong size
        turned = False
    return image.size[::-1] if turned else image.size


def _upright(image: Image.Image, declared: Size) -> Image.Image:
    """Return the image rotated by its EXIF orientation if that gives the declared size, otherwise unchanged."""
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF: the caller then reports the wrong size
        return image
    return turned if turned.size == declared else image


def _rgb(image: Image.Image, path: Path, source: str) -> Image.Image:
    if is_deep(image.mode):
        raise DataError(f"image {path} has pixels of mode {image.mode}; expected 8 bits per channel", source)
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
