"""Writes examples of the shapes world as GRIT JSONL files with PNG images."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import PIL
from PIL import Image, ImageChops

from grit_lightning.data.shapes.drawing import draw
from grit_lightning.data.shapes.questions import KINDS, make_question, mixed_question
from grit_lightning.data.shapes.scenes import STANDARD, Difficulty, Split
from grit_lightning.errors import DataError

T = TypeVar("T")


def make_example(seed: int, index: int, split: Split = "train") -> tuple[Image.Image, dict[str, Any]]:
    """Returns an image and its GRIT record (boxes in original pixels), a pure function of the arguments.

    Counting and spatial questions come in turn.
    """
    question = mixed_question(seed, index, split)
    return draw(question.scene), question.record(f"{split}_{seed}_{index}.png", split)


def write_dataset(
    folder: Path, *, count: int, seed: int, split: Split, difficulty: Difficulty = STANDARD
) -> list[Path]:
    """Writes ``shapes_<kind>_<split>_<count>.jsonl`` for each kind of question, and their pictures to ``images/``.

    Each file appears whole or not at all, the JSONL files last. What is there already with the same content stays as
    it is, so several processes may write the same folder.

    Args:
        folder: made if it is missing.
        count: samples of each kind.
        seed: of the examples; image names carry it.
        split: ``train`` or ``heldout``, which share no image.
        difficulty: of the scenes.

    Returns:
        The JSONL files.

    Raises:
        DataError: a file of this name has other content (then nothing is written), or the folder cannot be written.
    """
    pictures: dict[Path, Image.Image] = {}
    texts: dict[Path, bytes] = {}
    for kind in KINDS:
        lines = []
        for index in range(count):
            question = make_question(seed, index, kind, split, difficulty)
            name = f"{kind}_{split}_{seed}_{index}.png"
            pictures[folder / "images" / name] = draw(question.scene)
            lines.append(json.dumps(question.record(name, split)) + "\n")
        texts[folder / f"shapes_{kind}_{split}_{count}.jsonl"] = "".join(lines).encode()
    try:
        absent = [path for path, image in pictures.items() if _is_absent(path, image, _same_pixels)]
        absent += [path for path, text in texts.items() if _is_absent(path, text, _same_bytes)]
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for path in absent:
            _write_atomically(path, texts[path] if path in texts else _png(pictures[path]))
    except OSError as error:
        raise DataError(f"cannot write the data set ({error.strerror or error})", str(folder)) from error
    return list(texts)


def world_version() -> str:
    """Changes with whatever decides the scenes and how they are drawn: this package's source, and Pillow."""
    digest = hashlib.sha256(PIL.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _is_absent(path: Path, content: T, same: Callable[[Path, T], bool]) -> bool:
    """Whether the file has yet to be written; one with other content is an error."""
    if not path.exists():
        return True
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


def _write_atomically(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
