"""Tests of ``task=convert``: it writes a checkpoint, or one line about the reason why it cannot."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig

from support import original_internvl as original

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FAST = ("task=convert", "threads=1")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    values = original.config()
    original.write(folder / "original", values, original.random_weights(values), shards=2)
    return folder


def test_a_folder_of_the_original_layout_is_converted(cli, work: Path) -> None:
    done = cli(*FAST, "task.checkpoint=original", "out=native", cwd=work)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"original, converted to the layout of transformers\n\nwritten to {work / 'native'}\n"
    assert done.stderr == ""
    assert AutoConfig.from_pretrained(work / "native").model_type == "internvl"
    assert len(list((work / "native").glob("model-*-of-00002.safetensors"))) == 2


def test_a_hub_id_is_converted_from_the_hubs_cache(cli, work: Path) -> None:
    repository = work / "hub" / "models--someone--InternVL3"
    shutil.copytree(work / "original", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    offline = {"HF_HUB_CACHE": str(work / "hub"), "HF_HUB_OFFLINE": "1"}
    done = cli(*FAST, "task.checkpoint=someone/InternVL3", "out=fetched", cwd=work, **offline)
    assert done.returncode == 0, done.stderr
    assert AutoConfig.from_pretrained(work / "fetched").model_type == "internvl"
    missing = cli(*FAST, "task.checkpoint=someone/Else", "out=new", cwd=work, **offline)
    assert missing.returncode == 1
    assert missing.stderr == (
        "error: someone/Else: is neither a folder nor in the hub's cache, and cannot be downloaded: HF_HUB_OFFLINE "
        "forbids requests to the hub\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out=new",), "error: task.checkpoint has no default: give task.checkpoint=VALUE"),
        (("task.checkpoint=./nowhere", "out=new"), "error: ./nowhere: no such folder, and not a hub id of the form"),
        (("task.checkpoint=original", "out=original"), "original is taken: choose another out=…"),
        (("task.checkpoint=cut", "out=new"), "safetensors: has "),
    ],
)
def test_a_conversion_that_cannot_work_is_one_line(cli, work: Path, arguments: tuple[str, ...], message: str) -> None:
    shutil.copytree(work / "original", work / "cut", dirs_exist_ok=True)
    shard = work / "cut" / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    done = cli(*FAST, *arguments, cwd=work)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (work / "new").exists()
