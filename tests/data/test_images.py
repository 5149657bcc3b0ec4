"""Tests of image loading: which images are converted, and which are refused with file, line and reason."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grit_lightning.data.images import check_header, load_images
from grit_lightning.data.records import read_samples
from grit_lightning.errors import DataError
from grit_lightning.types import ImageFile, Sample
from support.photographs import VSR10, needs_photographs
from support.samples import one_image

ORIENTATION = 0x0112  # EXIF tag


def sample_of(path: Path, size: tuple[int, int]) -> Sample:
    return one_image("cats/1", "Why?", "No", path, size, (), "vsr", "", "cats.jsonl:1")


def only_image(sample: Sample) -> Image.Image:
    (image,) = load_images(sample)
    return image


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def refusal(path: Path, size: tuple[int, int]) -> str:
    with pytest.raises(DataError) as caught:
        only_image(sample_of(path, size))
    assert caught.value.source == "cats.jsonl:1"
    return str(caught.value).removeprefix("cats.jsonl:1: ")


def test_pixels_arrive_unchanged(tmp_path):
    original = noise(40, 30)
    original.save(tmp_path / "a.png")
    image = only_image(sample_of(tmp_path / "a.png", (40, 30)))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(original))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK"])
def test_other_modes_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("RGB", (4, 3), "white").convert(mode).save(path)
    image = only_image(sample_of(path, (4, 3)))
    assert (image.mode, image.getpixel((1, 1))) == ("RGB", (255, 255, 255))


def test_transparent_pixels_become_white(tmp_path):
    layer = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (9, 8, 7, 255))
    layer.save(tmp_path / "a.png")
    image = only_image(sample_of(tmp_path / "a.png", (2, 1)))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 8, 7)]


def test_a_missing_image_is_named(tmp_path):
    path = tmp_path / "gone.png"
    assert refusal(path, (4, 3)) == f"image {path} does not exist"


def test_a_pipe_is_named_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png", (4, 3)) == f"image {tmp_path / 'a.png'} is not a regular file"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_image_is_refused(tmp_path, suffix):
    whole, torn = tmp_path / f"whole.{suffix}", tmp_path / f"torn.{suffix}"
    noise(200, 150).save(whole)
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert refusal(torn, (200, 150)).startswith(f"image {torn} cannot be decoded (")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_text("<html>404</html>")
    assert refusal(path, (4, 3)).startswith(f"image {path} cannot be decoded (cannot identify image file")


def test_a_size_other_than_declared_is_refused(tmp_path):
    path = tmp_path / "a.png"
    noise(40, 30).save(path)
    expected = f"image {path} is 40 × 30 px, but fields 'width' and 'height' declare 640 × 480 px"
    assert refusal(path, (640, 480)) == expected


def test_an_aspect_ratio_above_200_is_refused(tmp_path):
    Image.new("RGB", (1, 5000)).save(tmp_path / "thin.png")
    Image.new("RGB", (400, 2)).save(tmp_path / "limit.png")
    message = refusal(tmp_path / "thin.png", (1, 5000))
    assert message == f"image {tmp_path / 'thin.png'} is 1 × 5000 px; expected an aspect ratio of at most 200"
    assert only_image(sample_of(tmp_path / "limit.png", (400, 2))).size == (400, 2)


def test_exif_orientation_follows_the_declared_size(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be shown turned by 90° clockwise
    stored = noise(40, 30)
    stored.save(tmp_path / "a.png", exif=exif)
    as_stored = only_image(sample_of(tmp_path / "a.png", (40, 30)))
    as_shown = only_image(sample_of(tmp_path / "a.png", (30, 40)))
    assert np.array_equal(np.asarray(as_stored), np.asarray(stored))
    assert np.array_equal(np.asarray(as_shown), np.rot90(np.asarray(stored), -1))
    assert "is 40 × 30 px" in refusal(tmp_path / "a.png", (31, 40))


def test_an_image_of_16_bits_per_channel_is_refused(tmp_path):
    Image.fromarray(np.full((3, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert refusal(tmp_path / "deep.png", (4, 3)).endswith("expected 8 bits per channel")


@pytest.mark.parametrize("limit", [1199, 500])  # above the limit Pillow warns, above twice the limit it raises
def test_an_image_with_too_many_pixels_is_refused(tmp_path, monkeypatch, limit):
    noise(40, 30).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert refusal(tmp_path / "a.png", (40, 30)).startswith(f"image {tmp_path / 'a.png'} has too many pixels")


@needs_photographs
def test_the_ten_vsr_photographs_have_their_declared_sizes():
    samples = list(read_samples(VSR10 / "vsr_cot_train_10.jsonl", VSR10 / "images"))
    assert len(samples) == 10
    assert [only_image(sample).size for sample in samples] == [sample.size for sample in samples]


def header_refusal(path: Path, size: tuple[int, int]) -> str:
    with pytest.raises(DataError) as caught:
        check_header(ImageFile(path, size), "cats.jsonl:1")
    return str(caught.value).removeprefix("cats.jsonl:1: ")


def test_the_header_tells_what_decoding_would(tmp_path, monkeypatch):
    good, turned, page = tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.png"
    noise(40, 30).save(good)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    noise(40, 30).save(turned, exif=exif)
    page.write_text("<html>404</html>")
    check_header(ImageFile(good, (40, 30)), "cats.jsonl:1")
    check_header(ImageFile(turned, (40, 30)), "cats.jsonl:1")
    check_header(ImageFile(turned, (30, 40)), "cats.jsonl:1")
    for path, size in ((good, (30, 40)), (turned, (31, 40)), (page, (4, 3)), (tmp_path / "gone.png", (4, 3))):
        assert header_refusal(path, size) == refusal(path, size)
    os.mkfifo(tmp_path / "pipe.png")
    assert header_refusal(tmp_path / "pipe.png", (4, 3)) == refusal(tmp_path / "pipe.png", (4, 3))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1199)
    assert header_refusal(good, (40, 30)) == refusal(good, (40, 30))


def test_images_are_read_by_several_threads_at_once(tmp_path):
    samples = []
    for index in range(16):
        noise(40, 30).save(tmp_path / f"{index}.png")
        samples.append(sample_of(tmp_path / f"{index}.png", (40, 30)))
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert [image.size for image in pool.map(only_image, samples * 8)] == [(40, 30)] * 128
    assert warnings.filters == filters
