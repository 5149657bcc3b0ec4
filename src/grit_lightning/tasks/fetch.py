"""``task=fetch``: download the missing files of a data set and report those that cannot be downloaded."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

from huggingface_hub import get_token
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
        bases: beginnings of addresses, by the names that ``files`` and ``images`` use, see :class:`Addresses`. The
            token of HF_TOKEN or ``hf auth login`` is sent to ``hub`` only.
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
    if not isinstance(datamodule, GroundedQADataModule) or (root := datamodule.root) is None:
        raise ConfigError("this data has no files to fetch: choose data=grit20 or data=grit_eval")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request
    addresses = Addresses(bases, files, images)
    downloader = Downloader(
        parallel=parallel,
        attempts=attempts,
        timeout=timeout,
        backoff=backoff,
        max_wait=max_wait,
        tokens=_tokens(bases),
    )
    # A file may be listed for both training and validation.
    entries = list(dict.fromkeys(entry for listed in datamodule.listed.values() for entry in listed))
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data.root={root} cannot be made: {error.strerror} ({error.filename})") from error
    with fetch_lock(root):
        try:
            reports = asyncio.run(fetch_missing(entries, addresses, downloader, quiet=not sys.stderr.isatty()))
        except KeyboardInterrupt:
            sys.exit("stopped: run the same command to continue")
    problems = _print(reports)
    print(f"in {root}")
    if problems:
        sys.exit(1)
    return reports


def _tokens(bases: Mapping[str, str]) -> dict[str, str]:
    """Return the token of HF_TOKEN or ``hf auth login`` for the base ``hub``, if there are both.

    Raises:
        ConfigError: the token cannot be sent.
    """
    token = get_token()
    if token is None or "hub" not in bases:
        return {}
    if not re.fullmatch(r"[\x21-\x7e]+", token):  # httpx would quote it in its message
        raise ConfigError("HF_TOKEN holds a character that cannot be sent, expected letters, digits and punctuation")
    return {bases["hub"]: token}


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
