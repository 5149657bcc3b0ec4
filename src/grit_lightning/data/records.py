"""Reads the GRIT JSONL format: each line becomes a checked Sample or a list of problems.

Each line is a JSON object (GRIT_data, hub id ``yfan1997/GRIT_data``) with the fields ``question``, ``answer`` (string
or number), ``image`` (file name relative to the image folder), ``width`` and ``height``; or, for several images,
``images``, a list of objects with these three fields. Optional fields are ``bboxs`` (xyxy in original pixels, or
objects ``{"bbox_2d": [x1, y1, x2, y2], "label": "dog", "image": 2}``), ``options``, ``dataset``, ``split`` and, for
supervised fine-tuning, ``completion`` (the target text, with boxes in original pixels). Further fields become
``Sample.extra``. Blank lines and a byte order mark are ignored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from grit_lightning.data.record_fields import Fields
from grit_lightning.errors import DataError
from grit_lightning.system.files import require_regular
from grit_lightning.system.jsonl import BYTE_ORDER_MARK, kind_of, loads, whole_document
from grit_lightning.types import ImageFile, Sample


def read_samples(file: Path, images: Path) -> Iterator[Sample | DataError]:
    """Yield a Sample for each valid line and a DataError for each problem of an invalid line, in file order.

    Training raises the first DataError; validation collects all of them. A file that cannot be read, has only blank
    lines or is one JSON document yields one DataError.

    Args:
        file: the JSONL file.
        images: folder to which the ``image`` fields are relative; the images are not opened here.
    """
    shared: dict[ImageFile, ImageFile] = {}  # the samples about one image share it, which saves memory
    empty = True
    try:
        require_regular(file)
        with file.open("rb") as lines:  # a binary file is split at \n only: JSON strings may contain U+2028 unescaped
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                if empty and (document := whole_document(file, line)):
                    yield DataError(document, str(file))
                    return
                empty = False
                content = line.removeprefix(BYTE_ORDER_MARK if number == 1 else b"").rstrip(b"\n")
                yield from read_line(content, number, file, images, shared)
    except OSError as error:
        yield DataError(f"cannot read the data file ({error.strerror or error})", str(file))
        return
    except DataError as error:
        yield error
        return
    if empty:
        yield DataError("the file holds no samples; expected one JSON object per line", str(file))


def read_line(
    line: bytes, number: int, file: Path, images: Path, shared: dict[ImageFile, ImageFile]
) -> Iterator[Sample | DataError]:
    """Yield the Sample of one line, or a DataError for each of its problems.

    Args:
        line: the line, without its end.
        number: its number in the file, from 1.
        file: the file, for messages and ids.
        images: as in :func:`read_samples`.
        shared: images that earlier lines use, by themselves; this line's are added.
    """
    source = f"{file}:{number}"
    try:
        value = loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        yield DataError(f"not UTF-8 at byte {error.start + 1} of the line (0x{line[error.start]:02x})", source)
        return
    except json.JSONDecodeError as error:
        yield DataError(f"not valid JSON at column {error.colno} ({error.msg}); is the line cut off?", source)
        return
    except RecursionError as error:
        yield DataError(f"not usable JSON ({error})", source)
        return
    if not isinstance(value, dict):
        yield DataError(f"expected a JSON object, found {kind_of(value)}", source)
        return
    fields = Fields(value, source)
    pictures = fields.images(images)
    options = fields.options()
    sample = Sample(
        id=f"{file.stem}/{number}",
        question=fields.question(len(pictures)),
        answer=fields.answer(options),
        images=tuple(shared.setdefault(picture, picture) for picture in pictures),
        regions=fields.regions("bboxs", [image.size for image in pictures]),
        dataset=sys.intern(fields.optional_text("dataset", file.stem)),
        split=sys.intern(fields.optional_text("split", "")),
        source=source,
        completion=fields.text("completion") if fields.record.get("completion") is not None else None,
        options=options,
        extra=fields.extra(),
    )
    if fields.problems:
        yield from fields.problems
    else:
        yield sample
