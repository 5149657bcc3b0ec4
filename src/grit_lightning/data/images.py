"""Loads a sample's image: fully decoded, RGB, and of the size its record declares."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, ImageOps

from grit_lightning.errors import DataError
from grit_lightning.types import Sample

MAX_ASPECT_RATIO = 200
"""Longer side over shorter side. Qwen2-VL's ``smart_resize`` refuses more, and no such picture shows anything."""


def load_image(sample: Sample, file: Path | None = None) -> Image.Image:
    """Returns the sample's image as 8-bit RGB, of exactly ``sample.size`` in original pixels.

    An EXIF orientation is applied only where the stored pixels disagree with the declared size and the turned ones
    agree: boxes refer to the declared frame, and most annotations (COCO's among them) were made on the stored
    pixels. Transparent pixels become white. Of an animation, the first frame is read.

    Args:
        sample: whose image it is; messages name ``sample.image``.
        file: what is read, where that is not ``sample.image`` itself.

    Raises:
        DataError: the file is missing, cannot be decoded to the end, holds more than 8 bits a channel or too many
            pixels, has another size than declared, or is narrower than 1 : 200.
    """
    image = _decoded(file or sample.image, sample)
    if image.size != sample.size:
        image = _upright(image, sample)
    width, height = image.size
    if (width, height) != sample.size:
        raise DataError(
            f"image {sample.image} is {width} × {height} px, but fields 'width' and 'height' declare "
            f"{sample.size[0]} × {sample.size[1]} px",
            sample.source,
        )
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise DataError(
            f"image {sample.image} is {width} × {height} px; expected an aspect ratio of at most {MAX_ASPECT_RATIO}",
            sample.source,
        )
    return _rgb(image, sample)


def _decoded(file: Path, sample: Sample) -> Image.Image:
    path, source = sample.image, sample.source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; its limits are errors below
            warnings.simplefilter("error", Image.DecompressionBombWarning)
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


def _upright(image: Image.Image, sample: Sample) -> Image.Image:
    """The image turned by its EXIF orientation if that gives the declared size; else the image as it is."""
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF: the size problem is then the one to report
        return image
    return turned if turned.size == sample.size else image


def _rgb(image: Image.Image, sample: Sample) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"image {sample.image} has pixels of mode {image.mode}; expected 8 bits a channel", sample.source
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
