"""Tests of the checks of data files: problems are collected, the first one is raised, a table row sums up a file."""

from __future__ import annotations

import logging
import os
import sys
import time

import pytest

from grit_lightning.data import checks
from grit_lightning.data.checks import (
    DataFile,
    check_names,
    check_samples,
    describe,
    find_files,
    raise_first,
    read_file,
)
from grit_lightning.data.images import load_images
from grit_lightning.errors import ConfigError, DataError


def entry(path) -> DataFile:
    return DataFile(path, path.parent / "images")


def test_absent_files_are_named_in_one_warning(write, record, tmp_path, caplog):
    there = entry(write(record()))
    absent = [entry(tmp_path / name) for name in ("x.jsonl", "y.jsonl")]
    with caplog.at_level(logging.WARNING):
        assert find_files([absent[0], there, absent[1]], "train", quiet=False) == [there]
        assert find_files([absent[0], there], "train", quiet=True) == [there]
    assert caplog.messages == [f"data.train: skipped because missing: {absent[0].file}, {absent[1].file}"]
    with pytest.raises(DataError, match=r"x\.jsonl, .*y\.jsonl: none of the files of data\.val exists"):
        find_files(absent, "val", quiet=False)


def test_a_field_with_nearly_the_name_of_another_is_named_once(write, record, caplog):
    file = write(*[record(bboxes=[[0, 0, 1, 1]], difficulty=2)] * 3)
    with caplog.at_level(logging.WARNING):
        assert read_file(entry(file), quiet=False).problems == ()
        read_file(entry(file), quiet=True)
    assert caplog.messages == [f"{file}: field 'bboxes' only reaches rewards as sample.extra; is 'bboxs' meant?"]


def test_a_file_without_its_image_folder_is_skipped_as_if_absent(write, record, tmp_path, caplog):
    there = entry(write(record()))
    bare = DataFile(write(record(), name="mme.jsonl"), tmp_path / "mme")
    with caplog.at_level(logging.WARNING):
        assert find_files([there, bare], "val", quiet=False) == [there]
    assert caplog.messages == [f"data.val: skipped because missing: {tmp_path / 'mme'}"]
    with pytest.raises(DataError, match=r"/mme: none of the files of data\.val exists with its image folder$"):
        find_files([bare], "val", quiet=False)


def test_a_pipe_among_the_files_is_named(write, record, tmp_path):
    there, pipe = entry(write(record())), entry(tmp_path / "pipe.jsonl")
    os.mkfifo(pipe.file)
    with pytest.raises(DataError, match=r"^.*/pipe\.jsonl: is not a regular file$"):
        find_files([there, pipe], "train", quiet=True)


def test_duplicate_file_names_are_refused_because_sample_ids_contain_them(tmp_path):
    one, other = entry(tmp_path / "a/vsr.jsonl"), entry(tmp_path / "b/vsr.jsonl")
    check_names([one], [one])  # the same samples under the same ids
    with pytest.raises(ConfigError, match=r"list .*a/vsr\.jsonl and .*b/vsr\.jsonl; expected distinct file names"):
        check_names([one], [other])
    with pytest.raises(ConfigError, match=r"data\.train lists .*a/vsr\.jsonl twice"):
        check_names([one, one], [])
    with pytest.raises(ConfigError, match=r"data\.train lists no files"):
        check_names([], [one])


def test_problems_of_records_and_images_are_collected(write, record):
    file = write(record(), b"{", record(image="gone.png"), record(width=41), record())
    (check,) = check_samples(
        [read_file(entry(file), quiet=True)], encode=None, count_image_tokens=None, workers=0, quiet=True
    )
    assert [sample.id for sample in check.samples] == ["cats/1", "cats/5"]
    assert [problem.source for problem in check.problems] == [f"{file}:{line}" for line in (2, 3, 4)]
    assert check.prompt_tokens == check.image_tokens == ()


def test_the_first_problem_is_raised_and_the_others_are_counted():
    problems = [DataError(f"wrong {number}", f"a.jsonl:{number}") for number in range(3)]
    raise_first([])
    with pytest.raises(DataError) as alone:
        raise_first(problems[:1])
    assert str(alone.value) == "a.jsonl:0: wrong 0"
    with pytest.raises(DataError) as two:
        raise_first(problems[:2])
    assert str(two.value) == "a.jsonl:0: wrong 0 (and 1 more problem: task=validate lists them all)"
    with pytest.raises(DataError) as three:
        raise_first(problems)
    assert str(three.value) == "a.jsonl:0: wrong 0 (and 2 more problems: task=validate lists them all)"
    assert three.value.source == "a.jsonl:0"


def test_describe_summarises_a_file_as_a_table_row(write, record, encoder):
    file = write(record(), record(question="Why?", bboxs=[]), record(width=1), record(bboxs=[[0, 0, 2, 2]] * 4))
    (check,) = check_samples(
        [read_file(entry(file), quiet=True)],
        encode=lambda sample: encoder(sample, checks.load_images(sample)),
        count_image_tokens=encoder.count_image_tokens,
        workers=2,
        quiet=True,
    )
    assert describe(check) == {
        "file": "cats.jsonl",
        "samples": "3",
        "width": "40 / 40 / 40",
        "height": "30 / 30 / 30",
        "prompt tokens": "8 / 28 / 28",  # 4 or 24 characters, and 4 image tokens
        "image tokens": "4 / 4 / 4",
        "boxes per sample": "0 / 1 / 4",
        "problems": "1",
    }


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_any_number_of_threads_finds_the_same(write, record, encoder, workers):
    records = [
        record(question="Why?" * (1 + number % 3), image="gone.png" if number == 5 else "a.png") for number in range(9)
    ]
    (check,) = check_samples(
        [read_file(entry(write(*records)), quiet=True)],
        encode=lambda sample: encoder(sample, checks.load_images(sample)),
        count_image_tokens=None,
        workers=workers,
        quiet=True,
    )
    assert [sample.source.rpartition(":")[2] for sample in check.samples] == list("12345789")
    assert check.prompt_tokens == (8, 12, 16, 8, 12, 8, 12, 16)
    assert check.image_tokens == ()
    assert [problem.source.rpartition(":")[2] for problem in check.problems] == ["6"]


def test_an_unreadable_file_has_a_row_too(tmp_path):
    (check,) = check_samples(
        [read_file(entry(tmp_path / "x.jsonl"), quiet=True)],
        encode=None,
        count_image_tokens=None,
        workers=0,
        quiet=True,
    )
    assert describe(check)["problems"] == "1"
    assert describe(check)["width"] == "–"


@pytest.mark.parametrize(
    ("quiet", "terminal", "bar", "lines"),
    [(False, True, True, 0), (True, True, False, 0), (False, False, False, 1), (True, False, False, 0)],
)
def test_a_check_that_takes_long_says_how_far_it_is(
    write, record, capsys, caplog, monkeypatch, encoder, quiet, terminal, bar, lines
):
    def slow(sample):
        time.sleep(1.2)
        return encoder(sample, load_images(sample))

    caplog.set_level("INFO")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    file = write(*[record()] * 3)
    check_samples([read_file(entry(file), quiet=True)], encode=slow, count_image_tokens=None, workers=0, quiet=quiet)
    assert ("checking data" in capsys.readouterr().err) == bar
    assert len([message for message in caplog.messages if message == "checking data: 1 of 3 samples …"]) == lines
