"""Tests of the checks of all images: once each, in threads or processes, and remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.data import image_checks
from grit_lightning.data.checked_images import FILE, CheckedImages
from grit_lightning.data.image_checks import check_images
from grit_lightning.types import ImageFile, Sample

SIZE = (40, 30)


def sample(line: int, *paths: Path, size: tuple[int, int] = SIZE) -> Sample:
    images = tuple(ImageFile(path, size) for path in paths)
    return Sample(f"f/{line}", "q", "a", images, (), "d", "train", f"f.jsonl:{line}")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path in found:
        Image.effect_noise(SIZE, 99).convert("RGB").save(path)
    return found


def checked(samples: list[Sample], memory: CheckedImages, *, decode: bool, workers: int = 2) -> list[str]:
    return [str(one) for one in check_images(samples, decode=decode, workers=workers, memory=memory, quiet=True)]


@pytest.mark.parametrize("decode", [False, True])
def test_each_image_is_named_once_by_the_first_line_that_uses_it(paths, tmp_path, decode):
    gone = tmp_path / "gone.jpg"
    samples = [sample(1, paths[0]), sample(2, paths[1], gone), sample(3, gone), sample(4, paths[0], size=(30, 40))]
    assert checked(samples, CheckedImages(None), decode=decode) == [
        f"f.jsonl:2: image {gone} does not exist",
        f"f.jsonl:4: image {paths[0]} is 40 × 30 px, but fields 'width' and 'height' declare 30 × 40 px",
    ]


def test_bad_pixels_are_found_by_decoding_and_not_in_the_header(paths):
    paths[1].write_bytes(paths[1].read_bytes()[:-300])
    samples = [sample(line, path) for line, path in enumerate(paths, start=1)]
    assert checked(samples, CheckedImages(None), decode=False) == []
    (found,) = checked(samples, CheckedImages(None), decode=True)
    assert found.startswith(f"f.jsonl:2: image {paths[1]} cannot be decoded (")


def opened(monkeypatch) -> list[Path]:
    seen: list[Path] = []
    real = image_checks.check_header

    def spy(image, source):
        seen.append(image.path)
        return real(image, source)

    monkeypatch.setattr(image_checks, "check_header", spy)
    return seen


def test_what_passed_is_remembered_until_it_changes(paths, tmp_path, monkeypatch):
    memory = CheckedImages(tmp_path / "cache" / "deep")
    samples = [sample(line, path) for line, path in enumerate([*paths, tmp_path / "gone.jpg"], start=1)]
    assert len(checked(samples, memory, decode=True)) == 1
    seen = opened(monkeypatch)
    assert len(checked(samples, memory, decode=False)) == 1
    assert seen == [tmp_path / "gone.jpg"], "a decoded image has a good header"
    os.utime(paths[2], (5, 5))
    checked(samples, memory, decode=False)
    assert seen[1:] == [paths[2], tmp_path / "gone.jpg"]
    assert memory.unknown([ImageFile(paths[0], SIZE), ImageFile(paths[2], SIZE)], decoded=True) == [
        ImageFile(paths[2], SIZE)
    ], "of the changed image only the header is known"
    assert memory.unknown([ImageFile(paths[0], (30, 40))], decoded=False), "another declared size is another check"


def test_a_memory_that_cannot_be_used_is_none(paths, tmp_path):
    samples = [sample(1, paths[0])]
    (tmp_path / "in_the_way").write_text("")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / FILE).write_bytes(b"no database" * 100)
    for folder in (tmp_path / "in_the_way", broken, None):
        memory = CheckedImages(folder)
        assert checked(samples, memory, decode=False) == []
        assert memory.unknown([samples[0].images[0]], decoded=False) == [samples[0].images[0]]


def test_workers_need_no_torch():
    import subprocess
    import sys

    code = "import sys, grit_lightning.data.image_checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
