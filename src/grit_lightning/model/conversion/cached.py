"""Detection of checkpoints in an original layout, and their one-time conversion into the cache."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from grit_lightning import __version__
from grit_lightning.errors import CheckpointError
from grit_lightning.model.conversion.internvl import convert
from grit_lightning.model.conversion.internvl_config import is_original_config, read_config, require_convertible
from grit_lightning.system.files import build_folder_once
from grit_lightning.system.paths import cache_folder

_SUFFIXES = (".json", ".safetensors", ".txt")
"""Suffixes of the files that make up a checkpoint: config, index, tokenizer and weights, but no code."""


def is_original(checkpoint: str) -> bool:
    """Tell whether a checkpoint is in an original layout and must be converted before use.

    For a hub id, ``config.json`` is downloaded.

    Args:
        checkpoint: a folder, or a hub id.

    Raises:
        CheckpointError: the checkpoint is neither, or its ``config.json`` cannot be read.
    """
    return is_original_config(read_config(_config_file(checkpoint)))


def native_folder(checkpoint: str) -> Path:
    """Return the cached native form of a checkpoint in an original layout; convert it on first use.

    Several processes may call this at once: one converts, the others wait. A process killed during the conversion
    leaves no folder that could be mistaken for a complete one.

    Args:
        checkpoint: a folder, or a hub id, for which :func:`is_original` is true.

    Raises:
        CheckpointError: the checkpoint cannot be found or converted, or the cache cannot be written.
    """
    source = source_folder(checkpoint)
    folder = cache_folder() / "converted" / f"{checkpoint.strip('./').replace('/', '--')[-80:]}-{_identity(source)}"

    def build(target: Path) -> None:
        print(f"{checkpoint}: converting once to the layout of transformers, into {target}", file=sys.stderr)
        convert(source, target)

    return build_folder_once(folder, build)


def source_folder(checkpoint: str) -> Path:
    """Return the folder of an original checkpoint, for :func:`.internvl.convert` to read.

    For a hub id, the checkpoint is downloaded once its ``config.json`` is known to be convertible.

    Args:
        checkpoint: a folder, or a hub id.

    Raises:
        CheckpointError: there is no such folder or hub id, or its ``config.json`` is not convertible.
    """
    config = _config_file(checkpoint)
    require_convertible(read_config(config), Path(checkpoint))
    if Path(checkpoint).expanduser().is_dir():
        return config.parent
    with _hub_errors(checkpoint):
        files = [f"*{suffix}" for suffix in _SUFFIXES]
        return Path(snapshot_download(checkpoint, allow_patterns=files, ignore_patterns="*/*"))


def _config_file(checkpoint: str) -> Path:
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return folder / "config.json"
    if checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") > 1:
        raise CheckpointError(f"{checkpoint}: no such folder, and not a hub id of the form ORGANISATION/NAME")
    with _hub_errors(checkpoint):
        return Path(hf_hub_download(checkpoint, "config.json"))


@contextmanager
def _hub_errors(checkpoint: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(f"{checkpoint}: access is restricted: request it on the hub, then log in") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{checkpoint}: is not a folder, and not a public model on the hub") from error
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint}: is not a folder, and cannot be downloaded: {reason}") from error


def _identity(source: Path) -> str:
    """Return a hash that changes when a file of the checkpoint does; the path of a hub download contains its commit."""
    stats = [(path, path.stat()) for path in sorted(source.iterdir()) if path.suffix in _SUFFIXES]
    files = [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    return hashlib.sha256(repr((__version__, str(source.resolve()), files)).encode()).hexdigest()[:16]
