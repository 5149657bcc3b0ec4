"""Downloads the missing files of a data set: JSONL files and the images that they name."""

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
from grit_lightning.system.locks import held
from grit_lightning.types import ImageFile, Sample


class Outcome(Enum):
    """The outcome of fetching one file; the value is the word used in the report."""

    THERE = "already there"
    FETCHED = "fetched"
    MISSING = "missing"


@dataclass(slots=True)
class Report:
    """The outcome of fetching one data file and its images.

    Attributes:
        entry: the data file.
        state: outcome of the JSONL file itself.
        samples: the file's valid samples.
        images: outcome by image path.
        problems: one line for each missing or invalid file or record.
    """

    entry: DataFile
    state: Outcome
    samples: list[Sample] = field(default_factory=list)
    images: dict[Path, Outcome] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def row(self) -> dict[str, str]:
        """Return the row of the report, as cell text by column name."""
        counts = Counter(self.images.values())
        return {
            "file": self.entry.file.name,
            "state": self.state.value,
            "samples": str(len(self.samples)),
            "images": str(len(self.images)),
            **{outcome.value: str(counts[outcome]) for outcome in Outcome},
        }


class Addresses:
    """Download addresses of data files and images.

    Args:
        bases: base addresses, by the placeholder with which templates refer to them.
        files: template of a data file's address; ``{name}`` is the file name.
        images: templates of an image's address, by the sample's ``dataset``, in the order in which they are tried.
            ``{image}`` is the sample's ``image`` field and ``{name}`` its last component. A data set without templates
            has no known address.

    Raises:
        ConfigError: a template does not produce an ``http://`` or ``https://`` address.
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
        """Return the addresses of a data file."""
        return [self._files.format(**self._bases, name=quote(file.name))]

    def of_image(self, image: Path, dataset: str, folder: Path) -> list[str]:
        """Return the addresses of an image; an empty list if none is known.

        Args:
            image: path of the image.
            dataset: the ``dataset`` field of its sample.
            folder: folder to which the ``image`` field is relative.
        """
        names = {"name": quote(image.name), "image": quote(image.relative_to(folder).as_posix())}
        return [template.format(**self._bases, **names) for template in self._images.get(dataset, ())]

    def _require(self, key: str, template: str, **names: str) -> None:
        known = ", ".join(f"{{{name}}}" for name in (*self._bases, *names))
        try:
            address = template.format(**self._bases, **names)
            parts = urlsplit(address)
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{key} is {template!r}, expected an address with no placeholder except {known}"
            ) from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{key} is {template!r}, which gives {address}; expected an http:// or https:// address")


async def fetch_missing(
    entries: Sequence[DataFile], addresses: Addresses, downloader: Downloader, *, quiet: bool
) -> list[Report]:
    """Download the missing data files, then every image that is missing or fails its check; return a report per file.

    Existing files that pass their check are not downloaded. One failure does not stop the rest.

    Args:
        entries: the data files and their image folders.
        addresses: download addresses of the files and images.
        downloader: the downloader; this function enters and closes it.
        quiet: True to hide the progress bar.
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
    """Return a context manager that locks the data folder, because two fetches would write the same partial files.

    A folder without write permission is not locked: a fetch can only check the files in it.

    Raises:
        ConfigError: another process holds the lock; raised on entering the context.
    """
    if not os.access(folder, os.W_OK):
        return nullcontext()
    return held(folder / ".fetch.lock", busy=f"{folder}: another task=fetch is running in this folder")


@dataclass(slots=True)
class _Image:
    """An image to fetch: the samples that use it, its addresses and its outcome."""

    path: Path
    uses: list[tuple[ImageFile, Sample]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    outcome: Outcome = Outcome.MISSING
    reason: str = ""

    def check(self, file: Path) -> None:
        """Raise DataError unless ``file`` decodes and has the size that every sample declares."""
        for image, sample in {image.size: (image, sample) for image, sample in self.uses}.values():
            load_image(image, sample.source, file)


async def _data_file(entry: DataFile, addresses: Addresses, downloader: Downloader) -> Report:
    report = Report(entry, Outcome.THERE)
    try:
        # An existing file with at least one valid sample is kept, because it may be the user's own version.
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
    """Raise DataError unless the file contains a valid sample and its last line is complete."""
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
            for used in sample.images:
                image = images.setdefault(used.path, _Image(used.path))
                image.uses.append((used, sample))
                known = addresses.of_image(used.path, sample.dataset, report.entry.images)
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
        return Outcome.MISSING, f"{image.uses[0][1].source}: {image.path}: {error}"


def _conclude(report: Report, jobs: Mapping[Path, _Image]) -> None:
    """Enter the outcomes of a data file's images into its report."""
    used = dict.fromkeys(image.path for sample in report.samples for image in sample.images)
    report.images = {path: jobs[path].outcome for path in used}
    missing = [jobs[path] for path, outcome in report.images.items() if outcome is Outcome.MISSING]
    report.problems += [image.reason for image in missing if image.reason]
    unknown = Counter(image.uses[0][1].dataset for image in missing if not image.reason)
    for dataset, count in unknown.items():
        report.problems.append(
            f"{count} images of {dataset}: no download address is known; place them in {report.entry.images} or give "
            f"their address as '++task.images.{dataset}=[\"http://…/{{name}}\"]'"
        )
