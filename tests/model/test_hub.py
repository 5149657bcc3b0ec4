"""Tests of checkpoints on the hub: the real hub client in new processes, against a local stand-in of the hub."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.hub_server import SIGNATURE, HubServer, Repository, account
from support.released import TINY

MODEL = "someone/tiny"
FETCH = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s")
from grit_lightning.app.main import quiet_libraries
quiet_libraries()
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
from grit_lightning.errors import CheckpointError
from grit_lightning.model.hub import checkpoint_folder, with_weights
try:
    folder = checkpoint_folder(sys.argv[1])
    print(*sorted(file.name for file in folder.iterdir()))
    print(*sorted(file.name for file in with_weights(sys.argv[1], folder).iterdir()))
except CheckpointError as error:
    sys.exit(f"error: {error}")
"""
SMALL = sorted({file.name for file in TINY.iterdir()} - {"model.safetensors"})
WHOLE = sorted({*SMALL, "model.safetensors"})

pytestmark = pytest.mark.slow


def fetch(env: dict[str, str], checkpoint: str = MODEL) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", FETCH, checkpoint]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tiny_on_hub(hub_server: HubServer) -> HubServer:
    hub_server.repositories[MODEL] = Repository.of(TINY)
    return hub_server


def test_files_are_downloaded_without_weights_first_and_no_request_is_printed(
    tiny_on_hub: HubServer, tmp_path: Path
) -> None:
    done = fetch(tiny_on_hub.environment(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [" ".join(SMALL), " ".join(WHOLE)]
    assert any(SIGNATURE in path for path in tiny_on_hub.paths("GET"))


def test_a_cached_checkpoint_is_used_offline_and_when_the_hub_is_down(tiny_on_hub: HubServer, tmp_path: Path) -> None:
    assert fetch(tiny_on_hub.environment(tmp_path)).returncode == 0
    tiny_on_hub.requests.clear()
    offline = fetch(tiny_on_hub.environment(tmp_path, HF_HUB_OFFLINE="1"))
    assert (offline.stdout.splitlines(), offline.stderr) == ([" ".join(WHOLE)] * 2, "")
    assert tiny_on_hub.requests == []
    down = fetch(tiny_on_hub.environment(tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))
    assert down.stdout.splitlines() == [" ".join(WHOLE)] * 2
    assert down.stderr.startswith(
        f"{MODEL}: the copy in the hub's cache is used: http://127.0.0.1:9 cannot be reached: "
    )
    assert len(down.stderr.splitlines()) == 1


def test_a_checkpoint_whose_weights_are_not_cached_names_the_reason(tiny_on_hub: HubServer, tmp_path: Path) -> None:
    tiny_on_hub.broken = 99
    assert fetch(tiny_on_hub.environment(tmp_path)).returncode == 1
    offline = fetch(tiny_on_hub.environment(tmp_path, HF_HUB_OFFLINE="1"))
    assert offline.stdout.splitlines() == [" ".join(SMALL)]
    assert offline.stderr == (
        f"error: {MODEL}: is neither a folder nor in the hub's cache, and cannot be downloaded: "
        "HF_HUB_OFFLINE forbids requests to the hub\n"
    )


@pytest.fixture
def silent_port() -> object:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_an_unreachable_hub_is_one_line_within_ten_seconds(
    hub_server: HubServer, tmp_path: Path, silent_port: int, how: str
) -> None:
    endpoint = f"http://127.0.0.1:{silent_port if how == 'silent' else 9}"
    env = hub_server.environment(tmp_path, HF_ENDPOINT=endpoint)
    subprocess.run([sys.executable, "-c", "import huggingface_hub"], check=True)  # reads the disk before the clock runs
    start = time.monotonic()
    done = fetch(env)
    assert time.monotonic() - start < 10
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {MODEL}: is neither a folder nor in the hub's cache, and cannot be downloaded: {endpoint} cannot be "
        "reached: "
    )
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("repository", "token", "reason"),
    [
        (None, "", "the hub has no repository someone/tiny, or none that your token may read (401)"),
        (None, "good", "the hub has no repository someone/tiny, or none that your token may read (404)"),
        ({"private": True}, "", "the hub has no repository someone/tiny, or none that your token may read (401)"),
        ({}, "bad", "the hub refuses your token (401): set HF_TOKEN to a valid one, or log in with `hf auth login`"),
        (
            {"gated": True},
            "good",
            "its files are restricted (403): request access at URL/someone/tiny, then set HF_TOKEN or log in with "
            "`hf auth login`",
        ),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(
    hub_server: HubServer, tmp_path: Path, repository: dict[str, bool] | None, token: str, reason: str
) -> None:
    hub_server.accounts["good"] = account("me")
    if repository is not None:
        hub_server.repositories[MODEL] = Repository.of(TINY, **repository)
    done = fetch(hub_server.environment(tmp_path, token))
    said = "is neither a folder nor in the hub's cache, and cannot be downloaded: "
    assert done.stderr == f"error: {MODEL}: {said}{reason.replace('URL', hub_server.url)}\n"


def test_a_broken_transfer_is_continued(tiny_on_hub: HubServer, tmp_path: Path) -> None:
    tiny_on_hub.broken = 1
    done = fetch(tiny_on_hub.environment(tmp_path))
    assert (done.stdout.splitlines()[1:], done.stderr) == ([" ".join(WHOLE)], "")


def test_a_transfer_that_always_breaks_is_one_line_without_the_signature(
    tiny_on_hub: HubServer, tmp_path: Path
) -> None:
    tiny_on_hub.broken = 99
    done = fetch(tiny_on_hub.environment(tmp_path))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {MODEL}: is neither a folder nor in the hub's cache, and cannot be downloaded: ")
    assert [line for line in done.stderr.splitlines() if not line.startswith("downloading someone/tiny …")] == [last]
    assert SIGNATURE not in done.stderr
