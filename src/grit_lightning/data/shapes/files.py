"""Data sets of the shapes world: generation, and writing as GRIT JSONL files with PNG images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageChops

from grit_lightning.data.shapes.drawing import draw_scene
from grit_lightning.data.shapes.questions import KINDS, make_question, mixed_question
from grit_lightning.data.shapes.scenes import STANDARD, Difficulty, Split
from grit_lightning.errors import DataError
from grit_lightning.system.files import require_regular, write_bytes_atomic
from grit_lightning.system.locks import held
from grit_lightning.system.paths import cache_folder

T = TypeVar("T")


def make_example(seed: int, index: int, split: Split = "train") -> tuple[Image.Image, dict[str, Any]]:
    """Return an image and its GRIT record (boxes in original pixels), a pure function of the arguments.

    Even indices give counting questions, odd ones spatial questions.
    """
    question = mixed_question(seed, index, split)
    return draw_scene(question.scene), question.record(f"{split}_{seed}_{index}.png", split)


@dataclass(frozen=True, slots=True)
class DrawnDataset:
    """Questions and pictures of the shapes world, ready to be written.

    Attributes:
        images: pictures, keyed by file name.
        texts: contents of the JSONL files, keyed by file name.
    """

    images: Mapping[str, Image.Image]
    texts: Mapping[str, bytes]

    def hash(self) -> str:
        """Return a hash of questions and pixels, 8 hexadecimal digits.

        The hash covers the generated content, not the source code, so a code edit that changes no output keeps it.
        """
        digest = hashlib.sha256()
        for name, image in self.images.items():
            digest.update(f"{name} {image.mode} {image.size}".encode() + image.tobytes())
        for name, text in self.texts.items():
            digest.update(name.encode() + text)
        return digest.hexdigest()[:8]

    def write(self, folder: Path) -> list[Path]:
        """Write the JSONL files to ``folder`` and the pictures to its ``images/``; return the JSONL paths.

        Each file appears complete or not at all, and the JSONL files come last. Existing files with the same content
        are kept, so several processes may write the same folder.

        Raises:
            DataError: a file of the same name has other content (then nothing is written), or the folder cannot be
                written.
        """
        images = {folder / "images" / name: image for name, image in self.images.items()}
        texts = {folder / name: text for name, text in self.texts.items()}

        def absent() -> list[Path]:
            pictures = [path for path, image in images.items() if _is_absent(path, image, _same_pixels)]
            return pictures + [path for path, text in texts.items() if _is_absent(path, text, _same_bytes)]

        try:
            if absent():
                (folder / "images").mkdir(parents=True, exist_ok=True)
                with held(folder / ".lock"):
                    for path in absent():  # checked again: another process may have written some
                        write_bytes_atomic(path, texts[path] if path in texts else _png(images[path]))
        except OSError as error:
            hint = "; GRIT_LIGHTNING_CACHE=DIR names another folder for the cache"
            inside = folder.is_relative_to(cache_folder())
            reason = f"cannot write the data set ({error.strerror or error}){hint if inside else ''}"
            raise DataError(reason, str(folder)) from error
        return [folder / name for name in self.texts]


def draw_dataset(*, count: int, seed: int, split: Split, difficulty: Difficulty = STANDARD) -> DrawnDataset:
    """Generate ``count`` questions of each kind, one file ``shapes_<kind>_<split>_<count>.jsonl`` per kind.

    Args:
        count: number of samples of each kind.
        seed: seed of the examples, which is part of the image names.
        split: ``train`` or ``heldout``; they share no image.
        difficulty: difficulty of the scenes.
    """
    images: dict[str, Image.Image] = {}
    texts: dict[str, bytes] = {}
    for kind in KINDS:
        lines = []
        for index in range(count):
            question = make_question(seed, index, kind, split, difficulty)
            name = f"{kind}_{split}_{seed}_{index}.png"
            images[name] = draw_scene(question.scene)
            lines.append(json.dumps(question.record(name, split)) + "\n")
        texts[f"shapes_{kind}_{split}_{count}.jsonl"] = "".join(lines).encode()
    return DrawnDataset(images, texts)


def _is_absent(path: Path, content: T, same: Callable[[Path, T], bool]) -> bool:
    """Tell whether a file is still to be written. Raise ``DataError`` if it exists with other content."""
    if not path.exists():
        return True
    require_regular(path)
    if not same(path, content):
        raise DataError("the file exists with other content; expected an empty folder", str(path))
    return False


def _same_bytes(path: Path, content: bytes) -> bool:
    return path.read_bytes() == content


def _same_pixels(path: Path, image: Image.Image) -> bool:
    with Image.open(path) as other:
        same_kind = other.mode == image.mode and other.size == image.size
        return same_kind and ImageChops.difference(other, image).getbbox() is None


def _png(image: Image.Image) -> bytes:
    stream = BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
