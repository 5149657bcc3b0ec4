"""Complete checks of data files before training starts, and a summary of their contents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from statistics import median

from grit_lightning.data.image_checks import worker_pool
from grit_lightning.data.images import load_images
from grit_lightning.data.listing import DataFile
from grit_lightning.data.record_fields import KNOWN
from grit_lightning.data.records import read_samples
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import require_regular
from grit_lightning.system.slow import announced, counted
from grit_lightning.types import Prompt, Sample

_FETCHED = ("vsr_cot_train_10.jsonl", "tallyqa_train_10.jsonl", "vsr_val.jsonl", "tallyqa_val.jsonl", "gqa_val.jsonl")
"""Files that ``task=fetch`` downloads."""

_Found = DataError | tuple[int, ...]
"""The problem of a sample, or its number of prompt tokens and of image tokens, as far as they are counted."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of checking one data file.

    Attributes:
        file: the JSONL file.
        samples: the valid samples, in file order.
        prompt_tokens: prompt length in tokens of each valid sample; empty if no encoder was given.
        image_tokens: number of image tokens of each valid sample; empty if no counter was given.
        problems: every problem: first those of the records, then those of the images and prompts, each in file order.
    """

    file: Path
    samples: tuple[Sample, ...]
    prompt_tokens: tuple[int, ...]
    image_tokens: tuple[int, ...]
    problems: tuple[DataError, ...]


def check_names(train: Sequence[DataFile], val: Sequence[DataFile]) -> None:
    """Check that no two data files have the same stem, because sample ids are made of the stems.

    The same file may be listed for both training and validation.

    Raises:
        ConfigError: nothing is listed for training, a file is listed twice, or two files have the same stem.
    """
    if not train:
        raise ConfigError("data.train lists no files; expected a JSONL file, a folder or a list of {file, images}")
    for what, entries in (("train", train), ("val", val)):
        files = [entry.file for entry in entries]
        twice = [file for file in files if files.count(file) > 1]
        if twice:
            raise ConfigError(f"data.{what} lists {twice[0]} twice; expected each file once")
    by_stem: dict[str, Path] = {}
    for entry in (*train, *val):
        other = by_stem.setdefault(entry.file.stem, entry.file)
        if other != entry.file:
            raise ConfigError(f"data.train and data.val list {other} and {entry.file}; expected distinct file names")


def fetch_hint(listed: Sequence[DataFile]) -> str:
    """Return the advice to fetch the files, if they are those of GRIT: nobody can fetch a user's own."""
    is_grit = any(entry.file.name in _FETCHED for entry in listed)
    return "; task=fetch downloads the files of data=grit20 and data=grit_eval" if is_grit else ""


def find_files(listed: Sequence[DataFile], what: str, *, quiet: bool) -> list[DataFile]:
    """Return the listed files that exist with their image folders, and name the missing ones in one warning.

    Args:
        listed: files of the data config, in order.
        what: ``train`` or ``val``, for messages.
        quiet: True to suppress the warning.

    Raises:
        DataError: no listed file exists with its image folder, or one is no regular file.
    """
    for entry in listed:
        require_regular(entry.file)
    present = [entry for entry in listed if entry.file.is_file() and entry.images.is_dir()]
    absent = ", ".join(
        str(entry.images if entry.file.is_file() else entry.file) for entry in listed if entry not in present
    )
    if not present:
        raise DataError(f"none of the files of data.{what} exists with its image folder{fetch_hint(listed)}", absent)
    if absent and not quiet:
        log.warning("data.%s: skipped because missing: %s", what, absent)
    return present


def read_file(entry: DataFile, *, quiet: bool) -> FileCheck:
    """Read and check the records of a data file, without its images.

    Args:
        entry: the data file.
        quiet: True to say nothing if it takes long.
    """
    samples: list[Sample] = []
    problems: list[DataError] = []
    with nullcontext() if quiet else announced(lambda: f"reading {entry.file.name}: {len(samples)} samples"):
        for item in read_samples(entry.file, entry.images):
            if isinstance(item, Sample):
                samples.append(item)
            else:
                problems.append(item)
    if not quiet:
        _warn_of_misspelt(entry.file, samples)
    return FileCheck(entry.file, tuple(samples), (), (), tuple(problems))


def _warn_of_misspelt(file: Path, samples: Sequence[Sample]) -> None:
    """Warn of further fields with nearly the name of a field that is read, such as ``bboxes``."""
    for name in dict.fromkeys(name for sample in samples for name in sample.extra):
        if near := get_close_matches(name, sorted(KNOWN), n=1, cutoff=0.8):
            log.warning("%s: field '%s' only reaches rewards as sample.extra; is '%s' meant?", file, name, near[0])


def check_samples(
    read: Sequence[FileCheck],
    *,
    encode: Callable[[Sample], Prompt] | None,
    count_image_tokens: Callable[[Prompt], int] | None,
    workers: int,
    quiet: bool,
) -> list[FileCheck]:
    """Decode every image and encode every prompt of files that were read; return one result per file.

    Problems are collected in the results instead of being raised.

    Args:
        read: what :func:`read_file` returned for each file.
        encode: function that loads and encodes a sample or raises DataError; ``None`` to only load the images.
        count_image_tokens: function that counts the image tokens of a prompt; ``None`` to skip the count.
        workers: number of threads that load and encode; 0 to do it in this one.
        quiet: True to hide the progress bar.
    """
    total = sum(len(file.samples) for file in read)
    check = partial(_check_sample, encode=encode, count_image_tokens=count_image_tokens)
    with (
        counted("checking data", total, "sample", quiet=quiet) as count,
        worker_pool(workers, processes=False) as pool,
    ):
        run = pool.map if workers else map
        return [_check_file(file, run(check, file.samples), count) for file in read]


def _check_file(read: FileCheck, checked: Iterable[_Found], count: Callable[[int], None]) -> FileCheck:
    """Add what was found about the samples of a file, in order, to what was found about its records."""
    samples: list[Sample] = []
    prompt_tokens: list[int] = []
    image_tokens: list[int] = []
    problems = list(read.problems)
    for sample, found in zip(read.samples, checked, strict=True):
        count(1)
        if isinstance(found, DataError):
            problems.append(found)
            continue
        samples.append(sample)
        prompt_tokens += found[:1]
        image_tokens += found[1:]
    return FileCheck(read.file, tuple(samples), tuple(prompt_tokens), tuple(image_tokens), tuple(problems))


def _check_sample(
    sample: Sample,
    encode: Callable[[Sample], Prompt] | None,
    count_image_tokens: Callable[[Prompt], int] | None,
) -> _Found:
    """Load and encode a sample, and return its problem or lengths but not the prompt, which may be large."""
    try:
        if encode is None:
            load_images(sample)
            return ()
        prompt = encode(sample)
    except DataError as error:
        return error
    return (prompt.num_tokens,) if count_image_tokens is None else (prompt.num_tokens, count_image_tokens(prompt))


def raise_first(problems: Sequence[DataError]) -> None:
    """Raise the first problem, if any; its message says how many more there are and how to list them.

    Raises:
        DataError: there is a problem.
    """
    if len(problems) == 1:
        raise problems[0]
    if problems:
        first = problems[0]
        message = str(first).removeprefix(f"{first.source}: ")
        more = f"{len(problems) - 1} more problem{'s' if len(problems) > 2 else ''}"
        raise DataError(f"{message} (and {more}: task=validate lists them all)", first.source) from first


def describe(check: FileCheck) -> dict[str, str]:
    """Return one row of the validation table, as cell text by column name.

    Ranges are written ``min / median / max``, or as a dash if there are no values. Image sizes are in original pixels.
    """
    return {
        "file": check.file.name,
        "samples": str(len(check.samples)),
        "width": _spread([width for sample in check.samples for width, _ in sample.sizes]),
        "height": _spread([height for sample in check.samples for _, height in sample.sizes]),
        "prompt tokens": _spread(check.prompt_tokens),
        "image tokens": _spread(check.image_tokens),
        "boxes per sample": _spread([len(sample.regions) for sample in check.samples]),
        "problems": str(len(check.problems)),
    }


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return f"{min(values)} / {median(values):g} / {max(values)}"
