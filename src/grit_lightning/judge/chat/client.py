"""Asking a server: some requests at a time, no more than it allows, again when that may help."""

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
from grit_lightning.system.retries import PermanentError, TransientError, retrying

T = TypeVar("T")

_log = logging.getLogger(__name__)

_UNKNOWN_FIELD = (400, 422)
"""What servers answer to a field that they do not have."""

FAILURES = (PermanentError, TransientError, httpx.HTTPError, TimeoutError)
"""What :meth:`ChatClient.complete` raises when there is no reply."""

_BURST = 1 / 6
"""Of a minute's allowance, the share that may be used at once; the rest comes evenly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How hard a server may be asked, and for how long. The first three are shared by the processes of a run.

    Attributes:
        concurrency: requests at a time.
        requests_per_minute: on average; ``None`` for no limit.
        tokens_per_minute: the same of tokens, by an estimate: 4 bytes of text each, and the longest reply.
        connect_timeout: seconds to connect.
        read_timeout: seconds without a byte.
        total_timeout: seconds for one request as a whole.
        attempts: how often a question is sent.
        backoff: the wait before attempt n + 1 is random, up to ``backoff`` · 2^(n−1) seconds, beside what the server
            asks for.
        max_wait: seconds: the most that either of the two waits grows to.
        max_reply_bytes: a longer reply is refused.
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
        endpoint: the server.
        limits: how hard it may be asked.
        response_format: what replies are to be held to; ``None`` to leave them free.
        processes: how many share the limits.
        statistics: requests, tokens and latencies are counted here.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        *,
        response_format: Mapping[str, Any] | None,
        processes: int,
        statistics: Statistics,
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._format = response_format
        self._statistics = statistics
        self._requests = _limiter(limits.requests_per_minute, processes)
        self._tokens = _limiter(limits.tokens_per_minute, processes)
        # A client with one connection for each request at a time: a pool looks at all its connections for every
        # request, which for 32 took half of the processor time. Last in, first out: open connections are used first.
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
        """Ask, and ask again where that may help.

        Args:
            body: the request, JSON-ready.
            tokens: what it is estimated to cost.
            accept: takes what is wanted from a reply; raises ``TransientError`` where it is not there.

        Raises:
            PermanentError, TransientError, httpx.HTTPError, TimeoutError: the last attempt failed.
            JudgeError: there is no key.
        """
        if self._format is not None:
            try:
                return await self._persist({**body, "response_format": self._format}, tokens, accept)
            except PermanentError as error:
                if not (self.endpoint.may_lack_schemas and error.status in _UNKNOWN_FIELD):
                    raise
        result = await self._persist(body, tokens, accept)
        if self._format is not None:
            self._format = None  # it was the cause: never again
            _log.info("%s takes no response_format: the judge's replies are free text", self.endpoint.address)
        return result

    async def _persist(self, body: Mapping[str, Any], tokens: float, accept: Callable[[Reply], T]) -> T:
        content = json.dumps(body, allow_nan=False).encode()  # ASCII: lone surrogates have no UTF-8
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
    """Why there is no reply, in a few words that hold no key."""
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return f"cannot connect ({error or 'time is up'})"
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "no reply in time"
    return str(error) or type(error).__name__


def _http_client(limits: Limits, verify: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=verify,
        timeout=httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout, pool=None),
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
        follow_redirects=False,  # the key is for this address alone
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
        await limiter.acquire(min(amount, limiter.max_rate))  # more than it ever has: all of it
