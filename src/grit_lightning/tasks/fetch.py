"""``task=fetch``: download the missing files of a data set and report those that cannot be downloaded."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from hydra.utils import instantiate
from omegaconf import DictConfig

from grit_lightning.app import config
from grit_lightning.data.download_file import Downloader
from grit_lightning.data.fetch_missing import Addresses, Outcome, Report, fetch_lock, fetch_missing
from grit_lightning.data.file_datamodule import GroundedQADataModule
from grit_lightning.errors import ConfigError
from grit_lightning.system.printable import printable
from grit_lightning.system.tables import record_table


def fetch_data(
    cfg: DictConfig,
    *,
    bases: Mapping[str, str],
    files: str,
    images: Mapping[str, Sequence[str]],
    parallel: int,
    attempts: int,
    timeout: float,
    backoff: float,
    max_wait: float,
) -> list[Report]:
    """Download the data set's JSONL files and the images that they name; print a table and every problem.

    Files that exist and pass their checks are not downloaded again. Exits with status 1 if any file is missing or
    invalid at the end.

    Args:
        cfg: the composed config.
        bases: beginnings of addresses, by the names that ``files`` and ``images`` use, see :class:`Addresses`.
        files: template of the address of a data file.
        images: templates of the address of an image, by dataset, in the order in which they are tried.
        parallel: files downloaded at a time, see :class:`Downloader`.
        attempts: attempts per address and file.
        timeout: seconds without receiving a byte after which an attempt fails.
        backoff: seconds; upper limit of the random wait before the second attempt, doubled for each later one.
        max_wait: seconds; limit on every wait.

    Returns:
        A report on each data file and its images.

    Raises:
        UserError: the config or the data folder cannot be used.
    """
    datamodule = instantiate(config.check(cfg)["data"])
    if not isinstance(datamodule, GroundedQADataModule):
        raise ConfigError("this data has no files to fetch: choose data=grit20 or data=grit_eval")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    addresses = Addresses(bases, files, images)
    downloader = Downloader(parallel=parallel, attempts=attempts, timeout=timeout, backoff=backoff, max_wait=max_wait)
    # A file may be listed for both training and validation.
    entries = list(dict.fromkeys(entry for listed in datamodule.listed.values() for entry in listed))
    try:
        datamodule.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data.root={datamodule.root} cannot be made: {error.strerror} ({error.filename})") from error
    with fetch_lock(datamodule.root):
        try:
            reports = asyncio.run(fetch_missing(entries, addresses, downloader, quiet=not sys.stderr.isatty()))
        except KeyboardInterrupt:
            sys.exit("stopped: run the same command to continue")
    problems = _print(reports)
    print(f"in {datamodule.root}")
    if problems:
        sys.exit(1)
    return reports


def _print(reports: Sequence[Report]) -> int:
    """Print a table of all files, every problem and the totals; return the number of problems."""
    print(f"{record_table([report.row() for report in reports])}\n")
    problems = list(dict.fromkeys(problem for report in reports for problem in report.problems))
    for problem in problems:
        print(printable(problem))
    files = {report.entry.file: report.state for report in reports}
    for report in reports:
        files |= report.images
    counts = Counter(files.values())
    print(", ".join(f"{counts[outcome]} {outcome.value}" for outcome in Outcome), end=", ")
    return len(problems)
