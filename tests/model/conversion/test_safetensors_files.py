"""Tests of tensors copied between safetensors files without loading them; the library reads the results back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from grit_lightning.model.conversion import safetensors_files
from grit_lightning.model.conversion.safetensors_files import read_stored, write_stored

TENSORS = {
    "bf16": torch.randn(6, 4).bfloat16(),
    "float": torch.randn(3, 2, 5),
    "half": torch.randn(7).half(),
    "long": torch.arange(9).reshape(3, 3),
    "scalar": torch.tensor(2.5),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "none": torch.zeros(0, 4),
}


def test_files_written_by_the_library_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a", metadata={"format": "pt"})
    stored = read_stored(tmp_path / "a")
    assert {name: tensor.shape for name, tensor in stored.items()} == {n: tuple(t.shape) for n, t in TENSORS.items()}
    assert {name: tensor.size for name, tensor in stored.items()} == {n: t.nbytes for n, t in TENSORS.items()}


def test_tensors_of_several_files_are_copied_under_new_names(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(safetensors_files, "_CHUNK", 7)  # several chunks a tensor
    save_file(TENSORS, tmp_path / "a")
    save_file({"more": torch.ones(3)}, tmp_path / "b")
    stored = read_stored(tmp_path / "a") | read_stored(tmp_path / "b")
    copied = []
    write_stored(tmp_path / "c", {f"x.{name}": tensor for name, tensor in stored.items()}, copied.append)
    expected = TENSORS | {"more": torch.ones(3)}
    result = load_file(tmp_path / "c")
    assert result.keys() == {f"x.{name}" for name in expected}
    assert all(torch.equal(result[f"x.{name}"], tensor) for name, tensor in expected.items())
    assert sum(copied) == sum(tensor.nbytes for tensor in expected.values())
    with safe_open(tmp_path / "c", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_parts_are_slices_along_the_first_axis(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a")
    whole = read_stored(tmp_path / "a")["bf16"]
    write_stored(tmp_path / "b", {str(i): whole.part(i, 3) for i in range(3)}, lambda count: None)
    parts = load_file(tmp_path / "b")
    assert all(torch.equal(parts[str(i)], TENSORS["bf16"][2 * i : 2 * i + 2]) for i in range(3))
