"""Checks of all images before training: their headers, or all of their pixels in several processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context

from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.data.checked_images import CheckedImages
from grit_lightning.data.images import check_header, load_image
from grit_lightning.errors import DataError
from grit_lightning.system.slow import announced
from grit_lightning.types import ImageFile, Sample

_AT_ONCE = 64
"""Images that one task of a worker checks."""

_REMEMBERED_AFTER = 4096
"""Images after which the results are remembered, so that a check that is stopped goes on where it was."""

_Job = list[tuple[ImageFile, str]]
"""Images, each with the ``file:line`` of the first sample that uses it."""


def check_images(
    samples: Sequence[Sample], *, decode: bool, workers: int, memory: CheckedImages, quiet: bool
) -> list[DataError]:
    """Check each image once, however many samples it belongs to, and return the problems in the order of the samples.

    Args:
        samples: the samples.
        decode: True to decode all pixels, in ``workers`` processes; False to read the headers, in as many threads.
        workers: number of processes or threads.
        memory: images that have passed before, which are not opened again; those that pass are added.
        quiet: True to hide the progress bar.
    """
    first_use: dict[ImageFile, str] = {}
    for sample in samples:
        for image in sample.images:
            first_use.setdefault(image, sample.source)
    images = memory.unknown(first_use, decoded=decode)
    chunks = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    jobs = [[(image, first_use[image]) for image in chunk] for chunk in chunks]
    silent = quiet or not sys.stderr.isatty()
    what = "decoding images" if decode else "checking image headers"
    problems: list[DataError] = []
    good: list[ImageFile] = []
    with (
        tqdm(total=len(images), desc=what, unit="image", disable=silent, delay=2) as progress,
        nullcontext() if quiet or not silent else announced(lambda: f"{what}: {progress.n} of {len(images)}"),
        _pool(decode, min(workers, len(jobs))) as pool,
    ):
        try:
            for job, found in zip(jobs, pool.map(_decode if decode else _read_headers, jobs), strict=True):
                progress.update(len(job))
                for (image, source), problem in zip(job, found, strict=True):
                    if problem is None:
                        good.append(image)
                    else:
                        problems.append(DataError(problem, source))
                if len(good) >= _REMEMBERED_AFTER:
                    memory.remember(good, decoded=decode)
                    good = []
        finally:
            memory.remember(good, decoded=decode)
    return problems


@contextmanager
def _pool(processes: bool, workers: int) -> Iterator[Executor]:
    """Provide workers; those that have not begun are cancelled if the block is left early."""
    pool: Executor
    if processes:
        # Spawned, not forked: a fork of a process with threads may hang. The workers import no torch, so start quickly.
        pool = ProcessPoolExecutor(max(1, workers), get_context("spawn"), initializer=_leave_signals_to_the_parent)
    else:
        pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="header")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _decode(job: _Job) -> list[str | None]:
    return [_problem(load_image, image, source) for image, source in job]


def _read_headers(job: _Job) -> list[str | None]:
    return [_problem(check_header, image, source) for image, source in job]


def _problem(check: Callable[[ImageFile, str], object], image: ImageFile, source: str) -> str | None:
    """Return the message of the check's DataError, without its source; ``None`` if the image passes."""
    try:
        check(image, source)
    except DataError as error:
        return str(error).removeprefix(f"{source}: ")
    return None
