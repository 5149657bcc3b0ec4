"""Lines in the log about something that takes long, so that nothing is silent for more than a few seconds."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.system.rank import is_first_process

log = logging.getLogger(__name__)


@contextmanager
def announced(what: str | Callable[[], str], *, after: float = 2.0, every: float = 10.0) -> Iterator[None]:
    """Log ``what`` if the block takes longer than ``after`` seconds, and again ``every`` so many seconds until it ends.

    Args:
        what: what the block does, such as ``loading weights``, or a function that says how far it has come. Only the
            first process of a run says so.
        after: seconds before the first line.
        every: seconds between further lines, which say how long it has taken.
    """
    if not is_first_process():
        yield
        return
    done = threading.Event()
    start = time.monotonic()

    def tell() -> None:
        if done.wait(after):
            return
        log.info("%s …", what if isinstance(what, str) else what())
        while not done.wait(every):
            log.info("%s … %.0f s", what if isinstance(what, str) else what(), time.monotonic() - start)

    teller = threading.Thread(target=tell, name="announcer", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


@contextmanager
def counted(
    what: str, total: int | None, unit: str, *, quiet: bool, after: float = 2.0, leave: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show how far a long block is: a bar on a terminal, lines in the log elsewhere. Yield the function that counts on.

    Args:
        what: what the block does, such as ``checking data``.
        total: number of things that it does; ``None`` if it is not known.
        unit: name of one thing.
        quiet: True to show nothing.
        after: seconds before the first line in the log.
        leave: True to leave the bar on the terminal at the end.
    """
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=unit, dynamic_ncols=True, leave=leave, delay=2) as bar:
            yield bar.update
    else:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more

        of = "" if total is None else f" of {total}"
        with announced(lambda: f"{what}: {done}{of} {unit}s", after=after):
            yield count
