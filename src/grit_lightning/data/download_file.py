"""One file over HTTP: asked for again when that may help, from where it broke off, in place only when it is whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import httpx

from grit_lightning import __version__
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import put_in_place
from grit_lightning.system.retries import (
    PermanentError,
    TransientError,
    is_transient,
    is_transient_status,
    retry_after,
    retrying,
)

Check = Callable[[Path], None]
"""Reads a file that has arrived, wherever it lies; raises DataError where it is not what was wanted."""


class Unavailable(Exception):
    """No address gave the file. The message says why, address by address."""


class Downloader:
    """Downloads files, some at a time. To be entered (``async with``) before use.

    Args:
        parallel: how many files at a time.
        attempts: how often one address is asked for one file.
        timeout: seconds without a byte after which a connection is given up.
        backoff: the wait before attempt n + 1 is random, up to ``backoff`` · 2^(n−1) seconds, beside what a server
            asks for.
        max_wait: seconds: the most that this grows to; a server that asks for a longer wait is given up.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(self, *, parallel: int, attempts: int, timeout: float, backoff: float, max_wait: float) -> None:
        for name, value in {"parallel": parallel, "attempts": attempts}.items():
            if value < 1:
                raise ConfigError(f"task.{name} is {value}, expected at least 1")
        for name, seconds in {"timeout": timeout, "backoff": backoff, "max_wait": max_wait}.items():
            if not 0 < seconds < float("inf"):
                raise ConfigError(f"task.{name} is {seconds}, expected a number of seconds above 0")
        self.attempts = attempts
        self.timeout = timeout
        self.max_wait = max_wait
        self.backoff = backoff
        self._slots = asyncio.Semaphore(parallel)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, pool=None),
            follow_redirects=True,
            # Without compression, so that lengths and ranges are those of the file.
            headers={"Accept-Encoding": "identity", "User-Agent": f"grit_lightning/{__version__}"},
        )

    async def __aenter__(self) -> Downloader:
        """Open the client."""
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._client.__aexit__(kind, error, traceback)

    async def get(self, addresses: Sequence[str], target: Path, check: Check) -> None:
        """Download ``target`` from the first address that gives a file which passes the check.

        Until then the file lies beside it as ``.NAME.part``. That stays where a connection broke, and the next attempt,
        of this process or a later one, asks for the rest only.

        Raises:
            Unavailable: no address gives it, or it cannot be written.
        """
        reasons = []
        async with self._slots:
            for address in addresses:
                try:
                    await self._ask(address, target, check)
                    return
                except (PermanentError, TransientError, httpx.HTTPError, OSError) as error:
                    reasons.append(f"{address}: {self._reason(error)}")
        raise Unavailable("; ".join(reasons))

    async def _ask(self, address: str, target: Path, check: Check) -> None:
        attempts = retrying(attempts=self.attempts, backoff=self.backoff, max_wait=self.max_wait)
        await attempts(self._attempt, address, _Partial(target), target, check)

    async def _attempt(self, address: str, partial: _Partial, target: Path, check: Check) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        asked = partial.rest_of(address)
        async with self._client.stream("GET", address, headers=asked) as response:
            self._expect_file(response, partial, asked)
            continued = response.status_code == httpx.codes.PARTIAL_CONTENT
            if not continued:
                partial.begin(address, response)
            await partial.append(response)
        try:
            check(partial.path)  # not in a thread: Pillow's warnings are caught by a setting that all threads share
        except DataError as error:
            partial.discard()
            message = str(error).removeprefix(f"{error.source}: ")
            # A body as long as announced is what the server has. One of unknown length may have been cut off.
            transient = continued or "content-length" not in response.headers
            raise (TransientError if transient else PermanentError)(message) from error
        partial.forget_origin()
        await asyncio.to_thread(put_in_place, partial.path, target)

    def _expect_file(self, response: httpx.Response, partial: _Partial, asked: dict[str, str]) -> None:
        """Raise unless the response brings the file, or the rest of it that was asked for."""
        status = response.status_code
        answer = f"HTTP {status} {response.reason_phrase}".strip()
        if is_transient_status(status):
            wait = retry_after(response)
            if wait > self.max_wait:
                raise PermanentError(
                    f"{answer}, to be asked again in {wait:.0f} s; task.max_wait is {self.max_wait:g} s"
                )
            raise TransientError(answer, wait)
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and asked:
            partial.discard()  # it is longer than the file
            raise TransientError(answer)
        if status == httpx.codes.PARTIAL_CONTENT and not (asked and partial.is_continued_by(response)):
            partial.discard()
            raise TransientError(f"{answer}, of another part or version of the file than was asked for")
        if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise PermanentError(answer)
        if response.headers.get("content-type", "").startswith("text/html"):
            raise PermanentError("answers with a web page instead of the file")

    def _reason(self, error: Exception) -> str:
        if isinstance(error, httpx.TimeoutException):
            text = f"no byte in {self.timeout:g} s"
        elif isinstance(error, httpx.ConnectError):
            text = f"cannot connect ({error})"
        else:
            text = str(error) or type(error).__name__
        again = is_transient(error) and self.attempts > 1
        return f"{text} (asked {self.attempts} times)" if again else text


class _Partial:
    """What has come of a file so far, and beside it which version of which address it is of.

    Args:
        target: where the file will lie.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._origin = target.with_name(f".{target.name}.part.json")
        self._etag, self._size = "", 0

    def rest_of(self, address: str) -> dict[str, str]:
        """Headers that ask for the rest of the file if it is still the same (RFC 9110, 13.1.5); none to begin anew."""
        try:
            origin = json.loads(self._origin.read_text())
            self._etag, self._size = origin["etag"], self.path.stat().st_size
        except (OSError, ValueError):  # there is nothing, or the note was torn
            return {}
        if origin["address"] != address or self._size == 0:
            return {}
        return {"Range": f"bytes={self._size}-", "If-Range": self._etag}

    def is_continued_by(self, response: httpx.Response) -> bool:
        """Whether the response goes on where this ends; some servers do not care what they were asked."""
        start = response.headers.get("content-range", "").startswith(f"bytes {self._size}-")
        return start and response.headers.get("etag") == self._etag

    def begin(self, address: str, response: httpx.Response) -> None:
        """Start from nothing, and note where from, if the server names the version."""
        self.discard()
        etag = response.headers.get("etag", "")
        # A weak one does not vouch for every byte; a compressed body has lengths of its own.
        if etag.startswith('"') and "content-encoding" not in response.headers:
            self._origin.write_text(json.dumps({"address": address, "etag": etag}))

    async def append(self, response: httpx.Response) -> None:
        """Add the body as it comes; if the process is killed, what has come is there."""
        with self.path.open("ab") as file:
            async for chunk in response.aiter_bytes():
                file.write(chunk)
                file.flush()

    def discard(self) -> None:
        """Forget it all."""
        self.path.unlink(missing_ok=True)
        self.forget_origin()

    def forget_origin(self) -> None:
        """Leave the file alone: it will not be continued."""
        self._origin.unlink(missing_ok=True)
