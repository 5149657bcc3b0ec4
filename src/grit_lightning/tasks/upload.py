"""Upload of an exported folder to the hub: check account and rights before the export, and upload it afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.model.hub import HUB_FAILURES, SECONDS, hub_reason


def require_upload(repository: str) -> None:
    """Check that a repository can be uploaded to, without changing anything on the hub.

    Args:
        repository: hub id ``ORGANISATION/NAME``; it need not exist.

    Raises:
        ConfigError: the id has another form, there is no token, the hub refuses it or cannot be reached, or the token
            may not write there.
    """
    if repository.count("/") != 1:
        raise ConfigError(f"task.push is {repository!r}, expected ORGANISATION/NAME")
    if get_token() is None:
        raise ConfigError(
            f"task.push={repository} needs a token that may write: set HF_TOKEN or log in with `hf auth login`"
        )
    hub = HfApi()
    try:
        with suppress(RepositoryNotFoundError):  # the upload creates it
            hub.model_info(repository, timeout=SECONDS)
        account = hub.whoami()
    except HUB_FAILURES as error:
        raise ConfigError(f"task.push={repository} cannot work: {hub_reason(error, repository)}") from error
    if reason := _missing_right(account, repository):
        raise ConfigError(f"task.push={repository} cannot work: {reason}")


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a folder to the hub with the token of HF_TOKEN or ``hf auth login``, and return the repository's URL.

    Args:
        folder: the exported folder.
        repository: hub id ``ORGANISATION/NAME``, created if it does not exist.
        private: create it as private.

    Raises:
        CheckpointError: the upload failed; the message has the command that uploads the folder, which is kept.
    """
    hub = HfApi()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of grit_lightning")
    except HUB_FAILURES as error:
        command = f"hf upload {repository} {shlex.quote(str(folder))}{' --private' if private else ''}"
        raise CheckpointError(
            f"{folder} is written, but could not be uploaded to {repository}: {hub_reason(error, repository)}; to "
            f"upload it, run: {command}"
        ) from error
    return f"{hub.endpoint}/{repository}"


def _missing_right(account: Mapping[str, Any], repository: str) -> str:
    """Return why an account's token may not write to a repository, or an empty text.

    Args:
        account: answer of the hub's ``whoami-v2``.
        repository: hub id.
    """
    owner = repository.partition("/")[0]
    roles = {organisation["name"]: organisation.get("roleInOrg") for organisation in account.get("orgs", [])}
    if owner not in (account["name"], *roles):
        places = ", ".join((account["name"], *roles))
        return f"your token is of {account['name']}, who may write to {places}, not to {owner}"
    if roles.get(owner) == "read":
        return f"{account['name']} may only read in {owner}"
    token = account.get("auth", {}).get("accessToken", {})
    scopes = token.get("fineGrained", {}).get("scoped", [])
    may_write = any("repo.write" in scope.get("permissions", []) for scope in scopes)
    if token.get("role") == "read" or (token.get("role") == "fineGrained" and not may_write):
        return "your token may only read, expected one that may write to repositories"
    return ""
