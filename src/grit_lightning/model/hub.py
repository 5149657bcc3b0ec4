"""The Hugging Face hub: download a checkpoint or find it in the hub's cache, and word errors of the hub in a clause."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download

# HTTPError is the base class of the client's own HTTP library: httpx for version 1 of the hub client, httpx2 since.
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from grit_lightning.errors import CheckpointError
from grit_lightning.system.slow import announced

log = logging.getLogger(__name__)

HUB_FAILURES = (HTTPError, OSError, ValueError, RuntimeError)
"""What the hub client raises: errors of the hub, of HTTP, of files, of malformed answers, and of its Rust transfers."""

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.index.json", "*.gguf", "*.onnx")
"""Files that hold weights in any format, and their indexes."""

SECONDS = 4.0
"""Seconds that the hub's first answer may take. Without a limit, a network that drops packets holds for minutes."""

_READ_WEIGHTS = ["*.safetensors", "*.safetensors.index.json"]
_SUBFOLDERS = "*/*"


def checkpoint_folder(checkpoint: str) -> Path:
    """Return a folder with a checkpoint's files; those of a hub id are downloaded into the hub's cache, except weights.

    Args:
        checkpoint: a folder, or a hub id.

    Raises:
        CheckpointError: the checkpoint is neither; or it is not in the cache, and the hub refuses it or cannot be
            reached. The hub is asked once, so that this takes seconds.
    """
    if (folder := Path(checkpoint).expanduser()).is_dir():
        return folder
    if checkpoint.startswith(("/", ".", "~")) or checkpoint.count("/") > 1:
        raise CheckpointError(f"{checkpoint}: no such folder, and not a hub id of the form ORGANISATION/NAME")
    return _snapshot(checkpoint, None, None, [*WEIGHTS, _SUBFOLDERS])


def with_weights(checkpoint: str, folder: Path) -> Path:
    """Return a checkpoint's folder with its safetensors files; those of a hub id are downloaded, at the same revision.

    Args:
        checkpoint: a folder, or a hub id.
        folder: its folder, from :func:`checkpoint_folder`.

    Raises:
        CheckpointError: the weights are not in the cache, and the hub refuses them or cannot be reached.
    """
    if Path(checkpoint).expanduser().is_dir():
        return folder
    return _snapshot(checkpoint, folder.name, _READ_WEIGHTS, [_SUBFOLDERS])


def hub_reason(error: BaseException, repository: str) -> str:
    """Return why the hub client failed, in one clause, without tokens and queries of addresses, which may be signed."""
    while isinstance(error, LocalEntryNotFoundError | RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # these say which file or step failed, but not why
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    page = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, GatedRepoError):
        return (
            f"its files are restricted ({status}): request access at {page}, then set HF_TOKEN or log in with "
            "`hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return f"the hub has no repository {repository}, or none that your token may read ({status})"
    if status == 401:
        return "the hub refuses your token (401): set HF_TOKEN to a valid one, or log in with `hf auth login`"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids requests to the hub"
    text = " ".join(re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]*", r"\1", str(error)).split())
    if token := get_token():
        text = text.replace(token, "…")  # some HTTP errors quote headers
    text = text[:300]
    if isinstance(error, HTTPError) and not status:
        return f"{constants.ENDPOINT} cannot be reached: {text or type(error).__name__}"
    return text or type(error).__name__


def _snapshot(checkpoint: str, revision: str | None, allowed: list[str] | None, ignored: list[str]) -> Path:
    """Return the folder of a repository's files in the hub's cache; without an answer of the hub, what lies there.

    ``snapshot_download`` alone would retry an unreachable hub for half a minute, or wait for it without a limit.
    """
    snapshot = partial(
        snapshot_download, checkpoint, revision=revision, allow_patterns=allowed, ignore_patterns=ignored
    )
    try:
        HfApi().model_info(checkpoint, revision=revision, timeout=SECONDS)
        with announced(f"downloading {checkpoint}"):
            return Path(snapshot())
    except HUB_FAILURES as error:
        reason = hub_reason(error, checkpoint)
        try:
            folder = Path(snapshot(local_files_only=True))
        except LocalEntryNotFoundError:
            raise CheckpointError(
                f"{checkpoint}: is neither a folder nor in the hub's cache, and cannot be downloaded: {reason}"
            ) from error
        if revision is None and not isinstance(error, OfflineModeIsEnabled):  # said once, not for the weights again
            log.warning("%s: the copy in the hub's cache is used: %s", checkpoint, reason)
        return folder
