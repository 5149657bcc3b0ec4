"""Images of imported rows: found by path or taken from bytes, checked, and written to the output's ``images/``."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from grit_lightning.data.images import MAX_ASPECT_RATIO, has_too_many_pixels, is_deep, is_too_narrow
from grit_lightning.data.importing.sample import LeftOutError
from grit_lightning.system.files import write_bytes_atomic
from grit_lightning.system.jsonl import shown
from grit_lightning.types import ImageFile, Size

_LONGEST_NAME = 200
"""Bytes of a path below which it is kept; an image with a longer one is named by its content."""


class _Header(NamedTuple):
    """Size in pixels, and the ending of a file name."""

    size: Size
    ending: str


class Pictures:
    """Writes images to a folder.

    Args:
        source: folder to which the paths of rows are relative. Images outside of it are refused, because a row is a
            stranger's text.
        target: folder to write to.
    """

    def __init__(self, source: Path, target: Path) -> None:
        self.source = source.expanduser().absolute()
        self.target = target
        self._copied: dict[Path, ImageFile] = {}

    def write(self, given: Any, field: str) -> ImageFile:
        """Copy an image, unless it is there already, and return it with its size; its path is relative to the target.

        Args:
            given: bytes, a path, or an object with ``bytes`` and ``path``.
            field: the field that holds it, for messages.

        Raises:
            LeftOutError: there is no such image, or it cannot be used.
            OSError: the target cannot be written.
        """
        content, path = _content_and_path(given, field)
        if content is not None:
            return self._written(content, "", field)
        file = Path(os.path.normpath(self.source / str(path)))
        if not file.is_relative_to(self.source):
            raise LeftOutError(field, f"is {shown(path)}; expected a path below task.images={self.source}")
        if file not in self._copied:  # many rows may be about one image
            self._copied[file] = self._written(_read(file, field), file.relative_to(self.source).as_posix(), field)
        return self._copied[file]

    def _written(self, content: bytes, name: str, field: str) -> ImageFile:
        """Write an image under a name, or under one of its content if the name is empty or too long."""
        header = _header(content, field)
        if not name or len(name.encode()) > _LONGEST_NAME:
            name = f"{hashlib.sha256(content).hexdigest()[:24]}.{header.ending}"
        target = self.target / name
        if not target.is_file() or target.stat().st_size != len(content):
            target.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(target, content)
        return ImageFile(Path(name), header.size)


def _content_and_path(given: Any, field: str) -> tuple[bytes | None, str | None]:
    content, path = (given.get("bytes"), given.get("path")) if isinstance(given, Mapping) else (given, given)
    if isinstance(content, bytes):
        return content, None
    if not isinstance(path, str) or not path or "\0" in path:
        raise LeftOutError(field, f"is {shown(path)}; expected bytes or the path of an image")
    if "://" in path:
        raise LeftOutError(field, f"is {shown(path)}; expected a file, because addresses are not downloaded")
    return None, path


def _read(file: Path, field: str) -> bytes:
    if not file.is_file():
        raise LeftOutError(field, f"is {file}, which does not exist or is no regular file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise LeftOutError(field, f"is {file}, which cannot be read ({error.strerror})") from error


def _header(content: bytes, field: str) -> _Header:
    """Return what the header says, if :func:`~grit_lightning.data.images.load_image` can take such an image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            size, mode, kind = image.size, image.mode, (image.format or "png").lower()
    except Exception as error:  # Pillow's decoders raise almost anything on malformed bytes
        raise LeftOutError(field, f"is no image that can be read ({error or type(error).__name__})") from error
    if has_too_many_pixels(size):
        raise LeftOutError(field, f"has {size[0]} × {size[1]} px, too many to be read safely")
    if is_too_narrow(size):
        raise LeftOutError(field, f"has {size[0]} × {size[1]} px; expected an aspect ratio up to {MAX_ASPECT_RATIO}")
    if is_deep(mode):
        raise LeftOutError(field, f"has pixels of mode {mode}; expected 8 bits per channel")
    return _Header(size, {"jpeg": "jpg", "mpo": "jpg"}.get(kind, kind))
