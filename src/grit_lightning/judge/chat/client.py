"""The HTTP client of a chat server, with limits on concurrency and rate, and with retries."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from time import perf_counter
from typing import Any, TypeVar

import httpx
from aiolimiter import AsyncLimiter

from grit_lightning import __version__
from grit_lightning.errors import ConfigError
from grit_lightning.judge.chat.endpoint import Endpoint
from grit_lightning.judge.chat.reply import Reply, read_reply
from grit_lightning.judge.chat.statistics import Statistics
from grit_lightning.system.printable import printable
from grit_lightning.system.retries import PermanentError, TransientError, retrying

T = TypeVar("T")

_log = logging.getLogger(__name__)

_UNKNOWN_FIELD = (400, 422)
"""HTTP statuses with which servers reject an unknown request field."""

FAILURES = (PermanentError, TransientError, httpx.HTTPError, TimeoutError)
"""Exceptions that :meth:`ChatClient.complete` raises when the last attempt failed."""

_BURST = 1 / 6
"""Share of a minute's allowance that may be used at once; the allowance is refilled at a constant rate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Rate limits, timeouts and retries of requests. The processes of a run divide the first three among themselves.

    Attributes:
        concurrency: maximum number of simultaneous requests.
        requests_per_minute: maximum average number of requests per minute; ``None`` for no limit.
        tokens_per_minute: maximum average number of tokens per minute; ``None`` for no limit. A request is estimated at
            one token per 4 bytes of text, plus the maximum length of the reply.
        connect_timeout: maximum time to connect, in seconds.
        read_timeout: maximum time without data, in seconds.
        total_timeout: maximum time of one request as a whole, in seconds.
        attempts: maximum number of times that a question is sent.
        backoff: scale of the random wait between attempts: up to ``backoff`` · 2^(n−1) seconds before attempt n + 1,
            in addition to the wait that the server requests.
        max_wait: upper limit of each of these two waits, in seconds.
        max_reply_bytes: maximum size of a reply in bytes; a longer reply counts as a failure.
    """

    concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    connect_timeout: float
    read_timeout: float
    total_timeout: float
    attempts: int
    backoff: float
    max_wait: float
    max_reply_bytes: int

    def __post_init__(self) -> None:
        for key in ("concurrency", "attempts", "max_reply_bytes"):
            if getattr(self, key) < 1:
                raise ConfigError(f"judge.limits.{key} is {getattr(self, key)}, expected at least 1")
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"judge.limits.{one.name} is {value}, expected a number above 0")


class ChatClient:
    """Sends chat completions to one server, on one event loop.

    Args:
        endpoint: address and key of the server.
        limits: rate limits, timeouts and retries.
        restriction: request fields that restrict the form of the replies; empty to leave them free.
        processes: number of processes that share the limits.
        statistics: counter of requests, failures, tokens and latencies.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        *,
        restriction: Mapping[str, Any],
        processes: int,
        statistics: Statistics,
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._restriction = restriction
        self._statistics = statistics
        self._requests = _limiter(limits.requests_per_minute, processes)
        self._tokens = _limiter(limits.tokens_per_minute, processes)
        # One HTTP client with a single connection per simultaneous request. A shared pool scans all its connections for
        # every request, which took half of the CPU time at 32 connections. Last in, first out, so that connections that
        # are already open are preferred.
        verify = httpx.create_ssl_context()
        self._clients = [_http_client(limits, verify) for _ in range(max(1, limits.concurrency // processes))]
        self._free: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
        for client in self._clients:
            self._free.put_nowait(client)

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients:
            await client.aclose()

    async def complete(self, body: Mapping[str, Any], *, tokens: float, accept: Callable[[Reply], T]) -> T:
        """Send a request, retry temporary failures, and return the result of ``accept``.

        Args:
            body: body of the request, JSON-ready.
            tokens: estimated cost of the request in tokens.
            accept: function that extracts the result from a reply; raises ``TransientError`` if the reply lacks it.

        Raises:
            PermanentError, TransientError, httpx.HTTPError, TimeoutError: the last attempt failed.
            JudgeError: the key is required but missing, or malformed.
        """
        if restriction := self._restriction:
            try:
                return await self._persist({**body, **restriction}, tokens, accept)
            except PermanentError as error:
                if not (self.endpoint.may_lack_schemas and error.status in _UNKNOWN_FIELD):
                    raise
        result = await self._persist(body, tokens, accept)
        if restriction and self._restriction:
            self._restriction = {}  # the server rejected it, so it is never sent again
            field = next(iter(restriction))
            _log.info("%s does not accept %s: the judge's replies are free text", self.endpoint.address, field)
        return result

    async def _persist(self, body: Mapping[str, Any], tokens: float, accept: Callable[[Reply], T]) -> T:
        content = json.dumps(body, allow_nan=False).encode()  # ASCII, because UTF-8 cannot encode lone surrogates
        limits = self.limits
        attempts = retrying(attempts=limits.attempts, backoff=limits.backoff, max_wait=limits.max_wait)
        return await attempts(self._attempt, content, tokens, accept)

    async def _attempt(self, content: bytes, tokens: float, accept: Callable[[Reply], T]) -> T:
        client = await self._free.get()
        try:
            await _acquire(self._requests, 1)
            await _acquire(self._tokens, tokens)
            return await self._send(client, content, accept)
        finally:
            self._free.put_nowait(client)

    async def _send(self, client: httpx.AsyncClient, content: bytes, accept: Callable[[Reply], T]) -> T:
        key = self.endpoint.key()
        headers = self.endpoint.headers(key)
        self._statistics.add(requests=1)
        start = perf_counter()
        try:
            async with (
                asyncio.timeout(self.limits.total_timeout),
                client.stream("POST", self.endpoint.address, headers=headers, content=content) as response,
            ):
                reply = await read_reply(response, max_bytes=self.limits.max_reply_bytes, key=key)
            self._statistics.add(
                latency=perf_counter() - start,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
            )
            return accept(reply)
        except FAILURES:
            self._statistics.add(failures=1)
            raise


def reason(error: BaseException) -> str:
    """Describe on one printable line why there is no reply; the text never contains the key.

    Every message about a server comes from here, so whatever text of the server an error quotes is escaped here.
    """
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return printable(f"cannot connect ({error or 'timed out'})")
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "no reply in time"
    return printable(str(error)) or type(error).__name__


def _http_client(limits: Limits, verify: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=verify,
        timeout=httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout, pool=None),
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        follow_redirects=False,  # the key must not be sent to another address
        headers={
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": f"grit_lightning/{__version__}",
        },
    )


def _limiter(per_minute: float | None, processes: int) -> AsyncLimiter | None:
    if per_minute is None:
        return None
    burst = max(1.0, per_minute / processes * _BURST)
    return AsyncLimiter(burst, 60 * burst / (per_minute / processes))


async def _acquire(limiter: AsyncLimiter | None, amount: float) -> None:
    if limiter is not None:
        await limiter.acquire(min(amount, limiter.max_rate))  # a larger amount takes the whole allowance
