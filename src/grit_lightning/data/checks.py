"""Checks data files to the last pixel before anything is trained, and sums up what they hold."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.data.images import load_image
from grit_lightning.data.records import read_samples
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.types import Prompt, Sample

PROGRESS_FROM = 50
"""More samples than this are checked under a progress bar."""

FETCH_HINT = "task=fetch gets those of data=grit20 and data=grit_eval"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DataFile:
    """A JSONL file and the folder its ``image`` fields are relative to."""

    file: Path
    images: Path


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What was found in one data file.

    Attributes:
        file: the JSONL file.
        samples: the samples without a problem, in file order.
        prompt_tokens: of each of these, the length of its prompt in tokens; empty when no encoder was given.
        image_tokens: of each of these, its image tokens; empty when no counter was given.
        problems: every problem found, in file order of the records, then of the images.
    """

    file: Path
    samples: tuple[Sample, ...]
    prompt_tokens: tuple[int, ...]
    image_tokens: tuple[int, ...]
    problems: tuple[DataError, ...]


def check_names(train: Sequence[DataFile], val: Sequence[DataFile]) -> None:
    """Sample ids are made of the stems of the files, so these must differ; only a whole file may serve both purposes.

    Raises:
        ConfigError: nothing is listed for training, a file is listed twice, or two files have the same stem.
    """
    if not train:
        raise ConfigError("data.train lists no files; expected at least one {file, images} entry")
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


def find_files(listed: Sequence[DataFile], what: str, *, quiet: bool) -> list[DataFile]:
    """Returns the listed files that are present with their image folders; what is absent is named in one warning.

    Args:
        listed: candidates, in order.
        what: what they are for, in messages: ``train`` or ``val``.
        quiet: no warning.

    Raises:
        DataError: none is present.
    """
    present = [entry for entry in listed if entry.file.is_file() and entry.images.is_dir()]
    absent = ", ".join(
        str(entry.images if entry.file.is_file() else entry.file) for entry in listed if entry not in present
    )
    if not present:
        raise DataError(f"none of the files of data.{what} exists with its image folder; {FETCH_HINT}", absent)
    if absent and not quiet:
        log.warning("data.%s: left out, since absent: %s", what, absent)
    return present


def check_files(
    files: Iterable[DataFile],
    *,
    encode: Callable[[Sample], Prompt] | None,
    count_image_tokens: Callable[[Prompt], int] | None,
    quiet: bool,
) -> list[FileCheck]:
    """Reads every record, decodes every image and encodes every prompt of the files, and collects all problems.

    Args:
        files: what to check.
        encode: loads and encodes a sample, raising DataError; ``None`` only loads the images.
        count_image_tokens: the image tokens of a prompt.
        quiet: no progress bar.
    """
    read = [(entry.file, list(read_samples(entry.file, entry.images))) for entry in files]
    total = sum(isinstance(item, Sample) for _, items in read for item in items)
    silent = quiet or total <= PROGRESS_FROM or not sys.stderr.isatty()
    with tqdm(total=total, desc="checking data", unit="sample", disable=silent) as progress:
        return [_check_file(file, items, encode, count_image_tokens, progress) for file, items in read]


def _check_file(
    file: Path,
    items: Sequence[Sample | DataError],
    encode: Callable[[Sample], Prompt] | None,
    count_image_tokens: Callable[[Prompt], int] | None,
    progress: tqdm,
) -> FileCheck:
    samples, prompt_tokens, image_tokens = [], [], []
    problems = [item for item in items if isinstance(item, DataError)]
    for sample in items:
        if isinstance(sample, DataError):
            continue
        progress.update()
        try:
            if encode is None:
                load_image(sample)
            else:
                prompt = encode(sample)
                prompt_tokens.append(prompt.num_tokens)
                if count_image_tokens is not None:
                    image_tokens.append(count_image_tokens(prompt))
            samples.append(sample)
        except DataError as error:
            problems.append(error)
    return FileCheck(file, tuple(samples), tuple(prompt_tokens), tuple(image_tokens), tuple(problems))


def raise_first(problems: Sequence[DataError]) -> None:
    """Raises the first problem, if any; its message says how many more there are and how to list them.

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
    """One row of the validation table: column → text; ranges are ``min / median / max``, a dash where nothing is known.

    Image sizes are in original pixels.
    """
    return {
        "file": check.file.name,
        "samples": str(len(check.samples)),
        "width": _spread([sample.size[0] for sample in check.samples]),
        "height": _spread([sample.size[1] for sample in check.samples]),
        "prompt tokens": _spread(check.prompt_tokens),
        "image tokens": _spread(check.image_tokens),
        "boxes per sample": _spread([len(sample.boxes) for sample in check.samples]),
        "problems": str(len(check.problems)),
    }


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "–"
    return f"{min(values)} / {median(values):g} / {max(values)}"
