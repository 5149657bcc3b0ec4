"""Tests of the shapes data sets on disk and of the command that writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.data.images import load_images
from grit_lightning.data.records import read_samples
from grit_lightning.data.shapes.__main__ import main
from grit_lightning.data.shapes.files import draw_dataset, make_example
from grit_lightning.data.shapes.questions import KINDS
from grit_lightning.errors import DataError
from grit_lightning.types import Sample

SHAPES20 = Path(__file__).parents[3] / "src/grit_lightning/assets/shapes20"


@pytest.mark.parametrize("index", [3, 4])
def test_an_example_is_a_pure_function_of_its_arguments(index):
    image, record = make_example(7, index)
    again, same = make_example(7, index)
    assert record == same
    assert record["dataset"] == KINDS[index % 2]
    assert image.size == (record["width"], record["height"])
    assert image.tobytes() == again.tobytes()
    assert make_example(8, index)[1]["question"] != record["question"]


def test_the_bundled_data_set_is_what_the_generator_makes(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "grit_lightning.data.shapes", str(tmp_path)], capture_output=True, text=True, check=True
    )
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert made == sorted(path.relative_to(SHAPES20) for path in SHAPES20.rglob("*.*"))
    assert len(result.stdout.splitlines()) == 2
    for name in made:
        if name.suffix == ".jsonl":
            assert (tmp_path / name).read_bytes() == (SHAPES20 / name).read_bytes()
        else:
            with Image.open(tmp_path / name) as new, Image.open(SHAPES20 / name) as old:
                assert (new.mode, new.size, new.tobytes()) == (old.mode, old.size, old.tobytes())
    assert sum(path.stat().st_size for path in SHAPES20.rglob("*.*")) < 200_000


def test_the_reader_accepts_what_is_written(tmp_path):
    for file in draw_dataset(count=30, seed=2, split="heldout").write(tmp_path):
        samples = list(read_samples(file, tmp_path / "images"))
        assert len(samples) == 30
        for sample in samples:
            assert isinstance(sample, Sample), sample
            assert load_images(sample)[0].size == sample.size
            assert (sample.dataset, sample.split) == (file.name.split("_")[1], "heldout")


def test_writing_twice_changes_nothing(tmp_path):
    draw_dataset(count=2, seed=1, split="train").write(tmp_path)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    draw_dataset(count=2, seed=1, split="train").write(tmp_path)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")} == before
    assert len(before) == 6


def test_other_content_is_never_overwritten(tmp_path, capsys):
    file, _ = draw_dataset(count=2, seed=1, split="train").write(tmp_path)
    files = sorted(tmp_path.rglob("*.*"))
    with pytest.raises(DataError) as caught:
        draw_dataset(count=2, seed=9, split="train").write(tmp_path)
    assert str(caught.value) == f"{file}: the file exists with other content; expected an empty folder"
    assert sorted(tmp_path.rglob("*.*")) == files
    assert main([str(tmp_path), "--count", "2", "--seed", "9"]) == 1
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_a_pipe_in_place_of_a_file_is_named_and_not_read(tmp_path):
    (file, _), images = draw_dataset(count=2, seed=1, split="train").write(tmp_path), tmp_path / "images"
    for path in (file, min(images.iterdir())):
        content = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(DataError) as caught:
            draw_dataset(count=2, seed=1, split="train").write(tmp_path)
        assert str(caught.value) == f"{path}: is not a regular file"
        path.unlink()
        path.write_bytes(content)


def test_a_folder_that_cannot_be_created_is_a_data_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out: cannot write the data set \(Not a directory\)"):
        draw_dataset(count=1, seed=0, split="train").write(tmp_path / "file" / "out")


def test_the_command_writes_the_files_and_prints_their_paths(tmp_path, capsys):
    assert main([str(tmp_path), "--count", "1", "--split", "heldout"]) == 0
    names = [f"shapes_{kind}_heldout_1.jsonl" for kind in KINDS]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--count", "0"])
    assert "expected at least 1" in capsys.readouterr().err
