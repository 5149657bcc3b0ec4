"""What a data set lacks: its JSONL files, and the images that they name."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import quote, urlsplit

from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.data.checks import DataFile
from grit_lightning.data.download_file import Downloader, Unavailable
from grit_lightning.data.images import load_image
from grit_lightning.data.records import read_samples
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import held
from grit_lightning.types import Sample


class Outcome(Enum):
    """What became of a file; the value is what the report calls it."""

    THERE = "already there"
    FETCHED = "fetched"
    MISSING = "missing"


@dataclass(slots=True)
class Report:
    """What became of a data file and its images.

    Attributes:
        entry: the data file.
        state: what became of the file itself.
        samples: how many of its samples can be read.
        images: of each image, what became of it.
        problems: what is missing or wrong, a line each.
    """

    entry: DataFile
    state: Outcome
    samples: list[Sample] = field(default_factory=list)
    images: dict[Path, Outcome] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def row(self) -> dict[str, str]:
        """Column → text."""
        counts = Counter(self.images.values())
        return {
            "file": self.entry.file.name,
            "state": self.state.value,
            "samples": str(len(self.samples)),
            "images": str(len(self.images)),
            **{outcome.value: str(counts[outcome]) for outcome in Outcome},
        }


class Addresses:
    """Where data files and images may be had.

    Args:
        bases: beginnings of addresses, by the names under which templates refer to them.
        files: template of a data file's address. ``{name}`` is its name.
        images: by ``dataset`` of the sample, templates of its image's address in the order in which they are tried.
            ``{image}`` is the sample's field, ``{name}`` the last part of it. None: no address is known.

    Raises:
        ConfigError: a template that does not give an ``http://`` or ``https://`` address.
    """

    def __init__(self, bases: Mapping[str, str], files: str, images: Mapping[str, Sequence[str]]) -> None:
        self._bases = {name: base.rstrip("/") for name, base in bases.items()}
        self._files = files
        self._images = images
        self._require("task.files", files, name="n")
        for dataset, templates in images.items():
            for index, template in enumerate(templates):
                self._require(f"task.images.{dataset}[{index}]", template, name="n", image="i")

    def of_file(self, file: Path) -> list[str]:
        """Of a data file."""
        return [self._files.format(**self._bases, name=quote(file.name))]

    def of_image(self, sample: Sample, folder: Path) -> list[str]:
        """Of a sample's image, where ``folder`` is what its field is relative to; empty where none is known."""
        names = {"name": quote(sample.image.name), "image": quote(sample.image.relative_to(folder).as_posix())}
        return [template.format(**self._bases, **names) for template in self._images.get(sample.dataset, ())]

    def _require(self, key: str, template: str, **names: str) -> None:
        known = ", ".join(f"{{{name}}}" for name in (*self._bases, *names))
        try:
            address = template.format(**self._bases, **names)
            parts = urlsplit(address)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{key} is {template!r}, expected an address that holds none but {known}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{key} is {template!r}, which gives {address}; expected an http:// or https:// address")


async def fetch_missing(
    entries: Sequence[DataFile], addresses: Addresses, downloader: Downloader, *, quiet: bool
) -> list[Report]:
    """Download the data files that are absent, then the images of all of them that are absent or spoilt.

    A file that is there and passes its check is not asked for. One that cannot be had hinders no other.

    Args:
        entries: the data files and their image folders.
        addresses: where they may be had.
        downloader: how they are downloaded.
        quiet: no progress bar.
    """
    async with downloader:
        reports = await asyncio.gather(*(_data_file(entry, addresses, downloader) for entry in entries))
        jobs = _images_of(reports, addresses)
        with tqdm(total=len(jobs), desc="fetching images", unit="image", disable=quiet) as progress:

            async def run(image: _Image) -> None:
                image.outcome, image.reason = await _fetch(image, downloader)
                progress.update()

            await asyncio.gather(*(run(image) for image in jobs.values()))
    for report in reports:
        _conclude(report, jobs)
    return reports


def fetch_lock(folder: Path) -> AbstractContextManager[None]:
    """Return a context that holds the data folder's lock, because two fetches would write the same partial files.

    A folder that cannot be written needs no lock: a fetch then only checks what is there.

    Raises:
        ConfigError: on entry, another process holds the lock.
    """
    if not os.access(folder, os.W_OK):
        return nullcontext()
    return held(folder / ".fetch.lock", busy=f"{folder}: another task=fetch is at work in this folder")


@dataclass(slots=True)
class _Image:
    """An image to be had, the samples about it, and in the end what became of it."""

    path: Path
    samples: list[Sample] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    outcome: Outcome = Outcome.MISSING
    reason: str = ""

    def check(self, file: Path) -> None:
        """Raises DataError unless ``file`` decodes and has the size that every sample declares."""
        for sample in {sample.size: sample for sample in self.samples}.values():
            load_image(sample, file)


async def _data_file(entry: DataFile, addresses: Addresses, downloader: Downloader) -> Report:
    report = Report(entry, Outcome.THERE)
    try:
        # Another file than ours is left alone while it holds samples: it may be the user's own version.
        if not any(isinstance(item, Sample) for item in read_samples(entry.file, entry.images)):
            await downloader.get(addresses.of_file(entry.file), entry.file, _check_data_file)
            report.state = Outcome.FETCHED
    except Unavailable as error:
        report.state = Outcome.MISSING
        report.problems.append(f"{entry.file}: {error}")
        return report
    items = list(read_samples(entry.file, entry.images))
    report.samples = [item for item in items if isinstance(item, Sample)]
    wrong = [str(item) for item in items if isinstance(item, DataError)]
    if wrong:
        more = f" (and {len(wrong) - 1} more: task=validate lists them all)" if len(wrong) > 1 else ""
        report.problems.append(wrong[0] + more)
    return report


def _check_data_file(file: Path) -> None:
    """Raises DataError unless the file holds samples and was not cut off in a line."""
    items = list(read_samples(file, file.parent))
    if not any(isinstance(item, Sample) for item in items):
        raise next(item for item in items if isinstance(item, DataError))
    try:
        json.loads(file.read_bytes().rstrip().rpartition(b"\n")[2])
    except ValueError:
        raise DataError("ends in the middle of a line", str(file)) from None


def _images_of(reports: Sequence[Report], addresses: Addresses) -> dict[Path, _Image]:
    images: dict[Path, _Image] = {}
    for report in reports:
        for sample in report.samples:
            image = images.setdefault(sample.image, _Image(sample.image))
            image.samples.append(sample)
            known = addresses.of_image(sample, report.entry.images)
            image.addresses = list(dict.fromkeys([*image.addresses, *known]))
    return images


async def _fetch(image: _Image, downloader: Downloader) -> tuple[Outcome, str]:
    try:
        image.check(image.path)
        return Outcome.THERE, ""
    except DataError as error:
        if not image.addresses:
            return Outcome.MISSING, str(error) if image.path.exists() else ""
    try:
        await downloader.get(image.addresses, image.path, image.check)
        return Outcome.FETCHED, ""
    except Unavailable as error:
        return Outcome.MISSING, f"{image.samples[0].source}: {image.path}: {error}"


def _conclude(report: Report, jobs: Mapping[Path, _Image]) -> None:
    """Note what became of the images of a data file."""
    report.images = {sample.image: jobs[sample.image].outcome for sample in report.samples}
    missing = [jobs[path] for path, outcome in report.images.items() if outcome is Outcome.MISSING]
    report.problems += [image.reason for image in missing if image.reason]
    unknown = Counter(image.samples[0].dataset for image in missing if not image.reason)
    for dataset, count in unknown.items():
        report.problems.append(
            f"{count} images of {dataset}: to be placed in {report.entry.images} yourself, "
            f"or give their address as '++task.images.{dataset}=[\"http://…/{{name}}\"]'"
        )
