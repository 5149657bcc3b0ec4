"""Tests of the conversion cache: a checkpoint is converted once and atomically, also when processes race or die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoConfig

from grit_lightning.errors import CheckpointError
from grit_lightning.model import conversion
from grit_lightning.model.conversion.cached import is_original, native_folder
from support import original_internvl as original

CALL = "import sys; from grit_lightning.model.conversion import native_folder; print(native_folder(sys.argv[1]))"
KILLED = """
import os, signal, sys
from grit_lightning.model.conversion import internvl, native_folder
write = internvl.write_stored
def die(file, tensors, advance):
    write(file, dict(list(tensors.items())[:3]), advance)
    os.kill(os.getpid(), signal.SIGKILL)
internvl.write_stored = die
native_folder(sys.argv[1])
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    values = original.config()
    return original.write(tmp_path / "InternVL3", values, original.random_weights(values))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRIT_LIGHTNING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


def start(code: str, source: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(source)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_only_the_original_layout_is_recognised_as_original(source: Path, cache: Path, backbone) -> None:
    assert is_original(source)
    assert not is_original(native_folder(str(source)))
    assert not is_original(Path(backbone.checkpoint))


def test_a_checkpoint_is_converted_once_and_again_when_it_changes(
    source: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = native_folder(str(source))
    assert AutoConfig.from_pretrained(first).model_type == "internvl"
    assert capsys.readouterr().err == f"{source}: converting once to the layout of transformers, into {first}\n"
    assert native_folder(str(source)) == first
    assert capsys.readouterr().err == ""
    (source / "README.md").write_text("no part of the checkpoint")
    assert native_folder(str(source)) == first
    os.utime(source / "model.safetensors", ns=(1, 1))
    second = native_folder(str(source))
    assert folders(cache) == sorted([first.name, second.name])
    assert first != second


@pytest.mark.slow
def test_simultaneous_processes_share_one_conversion(source: Path, cache: Path) -> None:
    both = [start(CALL, source) for _ in range(2)]
    results = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert sum(errors.count("converting") for _, errors in results) == 1
    assert folders(cache) == [Path(results[0][0].strip()).name]


@pytest.mark.slow
def test_a_killed_conversion_is_repeated_and_its_leftovers_removed(source: Path, cache: Path) -> None:
    killed = start(KILLED, source)
    killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL
    (left,) = folders(cache)
    assert left.endswith(".tmp")
    folder = native_folder(str(source))
    assert folders(cache) == [folder.name]
    values = json.loads((source / "config.json").read_text())
    assert len(load_file(folder / "model.safetensors")) > len(original.shapes(values))


def test_a_refused_checkpoint_leaves_nothing_in_the_cache(source: Path, cache: Path) -> None:
    (source / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="the download is incomplete"):
        native_folder(str(source))
    assert folders(cache) == []


def test_a_native_checkpoint_is_not_converted(backbone, cache: Path) -> None:
    with pytest.raises(CheckpointError, match="its architecture is Qwen2_5_VLFor"):
        native_folder(backbone.checkpoint)
    assert not cache.exists()


@pytest.mark.parametrize("checkpoint", ["/nowhere/at/all", "./nowhere", "a/b/c"])
def test_a_checkpoint_that_is_neither_folder_nor_hub_id_is_one_sentence(checkpoint: str) -> None:
    with pytest.raises(CheckpointError) as error:
        conversion.source_folder(checkpoint)
    assert str(error.value) == f"{checkpoint}: no such folder, and not a hub id of the form ORGANISATION/NAME"


def test_a_cache_that_cannot_be_written_is_one_sentence(source: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GRIT_LIGHTNING_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"cannot be written \(.+\): set GRIT_LIGHTNING_CACHE to another folder$"):
        native_folder(str(source))
