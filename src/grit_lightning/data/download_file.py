"""Download of one file over HTTP, with retries and resumption; the file appears only when it is complete and valid."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType

import httpx

from grit_lightning import __version__
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import put_in_place, require_regular
from grit_lightning.system.retries import (
    PermanentError,
    TransientError,
    is_transient,
    is_transient_status,
    retry_after,
    retrying,
)

Check = Callable[[Path], None]
"""A function that is given the path of a downloaded file and raises DataError if its content is invalid."""


class Unavailable(Exception):
    """Raised if no address delivers the file. The message gives the reason for each address."""


class Downloader:
    """Downloads files, a limited number at the same time. Enter it with ``async with`` before use.

    Args:
        parallel: maximum number of simultaneous downloads.
        attempts: maximum number of requests to one address for one file.
        timeout: seconds without data after which a connection is closed.
        backoff: scale of the random wait between attempts: up to ``backoff`` · 2^(n−1) seconds before attempt n + 1,
            in addition to the wait that the server requests.
        max_wait: upper limit of the random wait in seconds. If a server requests a longer wait, its address is not
            tried again.
        tokens: access tokens, by the beginning of the addresses that they are sent to. After a redirect to another
            host they are not sent again.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        *,
        parallel: int,
        attempts: int,
        timeout: float,
        backoff: float,
        max_wait: float,
        tokens: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
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
        self._tokens = {base.rstrip("/") + "/": token for base, token in tokens.items()}
        self._slots = asyncio.Semaphore(parallel)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, pool=None),
            follow_redirects=True,
            # No compression, so that content lengths and byte ranges are those of the file itself.
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
        """Download ``target`` from the first address that delivers a file which passes the check.

        Until it is complete, the file is stored beside the target as ``.NAME.part``. If the connection breaks, this
        partial file stays, and the next attempt, in this process or a later one, requests only the remaining bytes.

        Raises:
            Unavailable: no address delivers a valid file, or the file cannot be written.
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
        token = next((token for base, token in self._tokens.items() if address.startswith(base)), None)
        # httpx drops this header when it follows a redirect to another origin.
        proof = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self._client.stream("GET", address, headers=asked | proof) as response:
            self._expect_file(response, partial, asked)
            continued = response.status_code == httpx.codes.PARTIAL_CONTENT
            if not continued:
                partial.begin(address, response)
            await partial.append(response)
        try:
            check(partial.path)
        except DataError as error:
            partial.discard()
            message = str(error).removeprefix(f"{error.source}: ")
            # A body of the announced length is all that the server has, so a retry would bring the same bytes. A body
            # of unknown length may have been cut off, and a continued download may have joined different versions.
            transient = continued or "content-length" not in response.headers
            raise (TransientError if transient else PermanentError)(message) from error
        partial.forget_origin()
        await asyncio.to_thread(put_in_place, partial.path, target)

    def _expect_file(self, response: httpx.Response, partial: _Partial, asked: dict[str, str]) -> None:
        """Raise unless the response contains the file or the requested rest of it."""
        status = response.status_code
        answer = f"HTTP {status} {response.reason_phrase}".strip()
        if is_transient_status(status):
            wait = retry_after(response)
            if wait > self.max_wait:
                raise PermanentError(
                    f"{answer}, retry allowed after {wait:.0f} s, but task.max_wait is {self.max_wait:g} s"
                )
            raise TransientError(answer, wait)
        if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and asked:
            partial.discard()  # it is longer than the server's file
            raise TransientError(answer)
        if status == httpx.codes.PARTIAL_CONTENT and not (asked and partial.is_continued_by(response)):
            partial.discard()
            raise TransientError(f"{answer} for a different part or version of the file than requested")
        if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise PermanentError(answer)
        if response.headers.get("content-type", "").startswith("text/html"):
            raise PermanentError("answers with a web page instead of the file")

    def _reason(self, error: Exception) -> str:
        if isinstance(error, httpx.TimeoutException):
            text = f"no data for {self.timeout:g} s"
        elif isinstance(error, httpx.ConnectError):
            text = f"cannot connect ({error})"
        else:
            text = str(error) or type(error).__name__
        again = is_transient(error) and self.attempts > 1
        return f"{text} ({self.attempts} attempts)" if again else text


class _Partial:
    """The partial file of a download, and a note beside it of the address and ETag it comes from.

    Args:
        target: path of the complete file.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.part")
        self._origin = target.with_name(f".{target.name}.part.json")
        self._etag, self._size = "", 0

    def rest_of(self, address: str) -> dict[str, str]:
        """Return headers that request the remaining bytes if the server's file is unchanged (RFC 9110, 13.1.5).

        Without a partial file of this address there are none, and the download starts at the first byte.

        Raises:
            DataError: a pipe or device has the name of the partial file or of its note.
        """
        for path in (self.path, self._origin):
            require_regular(path)
        try:
            origin = json.loads(self._origin.read_text())
            self._etag, self._size = origin["etag"], self.path.stat().st_size
        except (OSError, ValueError):  # there is no partial file, or its note is incomplete
            return {}
        if origin["address"] != address or self._size == 0:
            return {}
        return {"Range": f"bytes={self._size}-", "If-Range": self._etag}

    def is_continued_by(self, response: httpx.Response) -> bool:
        """Tell whether the response continues the partial file; some servers ignore the requested range or version."""
        start = response.headers.get("content-range", "").startswith(f"bytes {self._size}-")
        return start and response.headers.get("etag") == self._etag

    def begin(self, address: str, response: httpx.Response) -> None:
        """Discard the partial file, and note the origin of the new one if the server names its version."""
        self.discard()
        etag = response.headers.get("etag", "")
        # A weak ETag does not guarantee identical bytes. Byte offsets in a compressed body are not those of the file.
        if etag.startswith('"') and "content-encoding" not in response.headers:
            self._origin.write_text(json.dumps({"address": address, "etag": etag}))

    async def append(self, response: httpx.Response) -> None:
        """Append the body chunk by chunk, flushing each chunk, so that it survives if the process is killed."""
        with self.path.open("ab") as file:
            async for chunk in response.aiter_bytes():
                file.write(chunk)
                file.flush()

    def discard(self) -> None:
        """Delete the partial file and its note."""
        self.path.unlink(missing_ok=True)
        self.forget_origin()

    def forget_origin(self) -> None:
        """Delete the note, so that no later download continues the partial file."""
        self._origin.unlink(missing_ok=True)
