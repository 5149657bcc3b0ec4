"""Tests of uploads with the real hub client, against a local stand-in of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.tasks.upload import require_upload, upload
from support.hub_server import SIGNATURE, HubServer, Repository, account

CANNOT = "task.push=lab/mine cannot work: "


@pytest.fixture
def hub(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", "secret")
    return hub_server


def fine_grained(*permissions: str) -> dict[str, Any]:
    value = account("me", "lab", role="fineGrained")
    value["auth"]["accessToken"]["fineGrained"] = {"scoped": [{"permissions": list(permissions)}]}
    return value


def reader_of_lab() -> dict[str, Any]:
    return account("me", "lab") | {"orgs": [{"name": "lab", "roleInOrg": "read"}]}


@pytest.mark.parametrize(
    "value", [account("lab"), account("me", "lab"), fine_grained("repo.content.read", "repo.write")]
)
@pytest.mark.parametrize("exists", [False, True])
def test_whoever_may_write_passes_and_nothing_is_changed(hub: HubServer, value: dict[str, Any], exists: bool) -> None:
    hub.accounts["secret"] = value
    if exists:
        hub.repositories["lab/mine"] = Repository()
    require_upload("lab/mine")
    assert {request.method for request in hub.requests} == {"GET"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the hub refuses your token (401): set HF_TOKEN to a valid one, or log in with `hf auth login`"),
        (account("me"), "your token is of me, who may write to me, not to lab"),
        (account("me", "other"), "your token is of me, who may write to me, other, not to lab"),
        (reader_of_lab(), "me may only read in lab"),
        (account("lab", role="read"), "your token may only read, expected one that may write to repositories"),
        (fine_grained("repo.read"), "your token may only read, expected one that may write to repositories"),
    ],
    ids=["invalid", "another", "another_organisation", "reader", "read_token", "fine_grained"],
)
def test_whoever_may_not_write_is_refused(hub: HubServer, value: dict[str, Any] | None, reason: str) -> None:
    if value is not None:
        hub.accounts["secret"] = value
    with pytest.raises(ConfigError) as error:
        require_upload("lab/mine")
    assert str(error.value) == CANNOT + reason


def test_an_upload_without_a_token_offline_or_under_no_id_is_refused(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"^task\.push is 'mine', expected ORGANISATION/NAME$"):
        require_upload("mine")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=f"^{CANNOT}HF_HUB_OFFLINE forbids requests to the hub$"):
        require_upload("lab/mine")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"^task\.push=lab/mine needs a token that may write: set HF_TOKEN or log in"):
        require_upload("lab/mine")
    assert hub.requests == []


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("create", "403 Forbidden: You don't have the rights to create a model under this namespace."),
        ("preupload", "403 Forbidden: You have read access but not the required permissions for this operation."),
        ("lfs", "403 Forbidden: Storage quota exceeded."),
        ("storage", "403 Forbidden: None. Cannot access content at: URL/lfs/"),
        ("commit", "403 Forbidden: Authorization error: the branch is protected."),
    ],
)
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # within the hub client
@pytest.mark.parametrize("private", [True, False])
def test_each_step_that_the_hub_refuses_leaves_the_folder_and_the_command(
    hub: HubServer, tmp_path: Path, step: str, reason: str, private: bool
) -> None:
    hub.accounts["secret"] = account("lab")
    hub.refused = {step}
    folder = tmp_path / "my export"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(CheckpointError) as error:
        upload(folder, "lab/mine", private=private)
    said = str(error.value)
    assert said.startswith(
        f"{folder} is written, but could not be uploaded to lab/mine: {reason.replace('URL', hub.url)}"
    )
    assert SIGNATURE not in said
    assert said.endswith(f"; to upload it, run: hf upload lab/mine '{folder}'{' --private' if private else ''}")
    assert "\n" not in said
    assert (folder / "model.safetensors").read_bytes() == b"weights"
