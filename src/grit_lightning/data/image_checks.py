"""Checks of all images before training: their headers, or all of their pixels in several processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context, parent_process, resource_tracker

from grit_lightning.data.checked_images import CheckedImages, State
from grit_lightning.data.images import check_header, load_image
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.slow import counted
from grit_lightning.types import ImageFile, Sample

_AT_ONCE = 64
"""Images that one task of a worker checks."""

_REMEMBERED_AFTER = 4096
"""Images after which the results are remembered, so that a check that is stopped goes on where it was."""

_Job = list[tuple[ImageFile, str]]
"""Images, each with the ``file:line`` of the first sample that uses it."""


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_images(
    samples: Sequence[Sample], *, decode: bool, workers: int, memory: CheckedImages, quiet: bool
) -> list[DataError]:
    """Check each image once, however many samples it belongs to, and return the problems in the order of the samples.

    Args:
        samples: the samples.
        decode: True to decode all pixels, in processes; False to read the headers, in threads.
        workers: number of processes or threads.
        memory: images that have passed before, which are not opened again; those that pass are added.
        quiet: True to hide the progress bar.

    Raises:
        ConfigError: a worker was killed.
    """
    first_use: dict[ImageFile, str] = {}
    for sample in samples:
        for image in sample.images:
            first_use.setdefault(image, sample.source)
    with memory.alone() if decode else nullcontext():
        return _check_unknown(first_use, decode=decode, workers=workers, memory=memory, quiet=quiet)


def _check_unknown(
    first_use: Mapping[ImageFile, str], *, decode: bool, workers: int, memory: CheckedImages, quiet: bool
) -> list[DataError]:
    states = memory.unknown(first_use, decoded=decode)
    images = list(states)
    chunks = [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]
    jobs = [[(image, first_use[image]) for image in chunk] for chunk in chunks]
    what = "decoding images" if decode else "reading headers of images"
    problems: list[DataError] = []
    good: dict[ImageFile, State | None] = {}
    with (
        counted(what, len(images), "image", quiet=quiet) as count,
        worker_pool(min(workers, len(jobs)), processes=decode) as pool,
    ):
        try:
            for job, found in zip(jobs, pool.map(_decode if decode else _read_headers, jobs), strict=True):
                count(len(job))
                problems += [DataError(text, source) for (_, source), text in zip(job, found, strict=True) if text]
                good |= {image: states[image] for (image, _), text in zip(job, found, strict=True) if not text}
                if len(good) >= _REMEMBERED_AFTER:
                    memory.remember(good, decoded=decode)
                    good = {}
        finally:
            memory.remember(good, decoded=decode)
    return problems


@contextmanager
def worker_pool(workers: int, *, processes: bool) -> Iterator[Executor]:
    """Provide threads or processes, at least one; calls that have not begun are cancelled if the block is left early.

    Raises:
        ConfigError: a process was killed.
    """
    pool: Executor
    if processes:
        _start_tracker()
        # Spawned, not forked: a fork of a process with threads may hang. The workers import no torch, so start quickly.
        pool = ProcessPoolExecutor(max(1, workers), get_context("spawn"), initializer=_obey_the_parent)
    else:
        pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="check")
    try:
        yield pool
    except BrokenExecutor as error:
        raise ConfigError(
            "a process that decodes images was killed, perhaps for lack of memory: start again to go on, or give "
            "data.check=headers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_tracker() -> None:
    """Start Python's process that cleans up after killed processes, so that a closed terminal does not end it.

    It keeps the signal mask of its start. Killed by SIGHUP, it is started again while the pool ends, knows nothing of
    what it should clean up, and prints tracebacks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_the_parent() -> None:
    """Leave signals of the terminal to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
