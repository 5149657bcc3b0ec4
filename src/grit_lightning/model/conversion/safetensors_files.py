"""Reading of safetensors headers, and copying of tensors into new files bit by bit, one chunk in memory at a time.

File format (README of safetensors, "Format"): the length of the header in eight bytes, little-endian; the header, a
JSON object from tensor name to dtype, shape and byte range in the data; the data, row-major.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError

from grit_lightning.errors import CheckpointError

INDEX = "model.safetensors.index.json"

_CHUNK = 1 << 24  # bytes
_LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor on disk.

    Attributes:
        file: file that holds the tensor.
        dtype: dtype as safetensors spells it, such as ``BF16``.
        shape: shape of the tensor.
        begin: offset of the first byte from the beginning of the file.
        size: size in bytes.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    size: int

    def part(self, index: int, count: int) -> StoredTensor:
        """Return part ``index``, from 0, of ``count`` equal parts along the first axis."""
        size = self.size // count
        shape = (self.shape[0] // count, *self.shape[1:])
        return replace(self, shape=shape, begin=self.begin + index * size, size=size)


def find_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder: the only one, or those its index names, sorted by name.

    Raises:
        CheckpointError: there is no weight file and no index, the index is invalid, or a file it names is missing.
    """
    single, index = folder / "model.safetensors", folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"{folder}: holds no weights, neither {single.name} nor {INDEX}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is not a weight index: {error!r}") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{folder}: lacks {missing[0]}, one of the {len(names)} files that {INDEX} names")
    return [folder / name for name in names]


def require_whole(folder: Path) -> None:
    """Check that a checkpoint folder's weight files are complete, by reading their headers.

    Raises:
        CheckpointError: a file is missing or truncated.
    """
    for file in find_files(folder):
        read_stored(file)


def read_stored(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file, by name. Only the header is read.

    Raises:
        CheckpointError: the file is missing, truncated, or not a safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError(f"its header would have {length} bytes")
            if 8 + length > size:
                raise CheckpointError(f"{file}: ends within its header: the download is incomplete")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        stored = {name: _stored(file, entry, 8 + length) for name, entry in header.items()}
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: is not a safetensors file: {error}") from error
    end = max((tensor.begin + tensor.size for tensor in stored.values()), default=0)
    if end > size:
        raise CheckpointError(f"{file}: has {size} of its {end} bytes: the download is incomplete")
    return stored


def _stored(file: Path, entry: Mapping[str, Any], data: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    return StoredTensor(file, entry["dtype"], tuple(entry["shape"]), data + begin, end - begin)


def write_stored(file: Path, tensors: Mapping[str, StoredTensor], advance: Callable[[int], object]) -> None:
    """Copy tensors into a new safetensors file.

    Args:
        file: file to write.
        tensors: tensors to copy, keyed by their names in the new file.
        advance: progress callback, called with the number of bytes just written.

    Raises:
        OSError: a file cannot be read or written.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.size
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (begin, end)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns tensors to multiples of their element size
    with file.open("wb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            _copy(tensor, target, advance)


def _copy(tensor: StoredTensor, target: BinaryIO, advance: Callable[[int], object]) -> None:
    with tensor.file.open("rb") as source:
        source.seek(tensor.begin)
        left = tensor.size
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise OSError(0, "became shorter while it was read", str(tensor.file))
            target.write(chunk)
            left -= len(chunk)
            advance(len(chunk))


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn safetensors' own error about a file that cannot be written into the ``OSError`` that it reports.

    Raises:
        OSError: the disk refused to be written within the block.
    """
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise
