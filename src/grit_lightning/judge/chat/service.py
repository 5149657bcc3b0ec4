"""One event loop for each server that is asked: a thread of its own, shared by all judges of this process.

Limits, cache and statistics are those of a server, so they belong here and not to a judge. A judge holds plain values
and can be copied, pickled and forked; it finds its service when it asks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from grit_lightning.errors import JudgeError
from grit_lightning.judge.chat.client import FAILURES, ChatClient, Limits, reason
from grit_lightning.judge.chat.endpoint import Endpoint
from grit_lightning.judge.chat.reply import Reply
from grit_lightning.judge.chat.reply_cache import CacheOptions, ReplyCache
from grit_lightning.judge.chat.statistics import Statistics
from grit_lightning.judge.protocol import then
from grit_lightning.judge.verdict import SCHEMA, parse_verdict
from grit_lightning.system.retries import TransientError

_log = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Scores kept in memory, so that the same words are asked once even without a cache on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceOptions:
    """What makes two judges share a service."""

    endpoint: Endpoint
    limits: Limits
    cache: CacheOptions | None
    structured_output: bool


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """A question as it is sent.

    Attributes:
        key: of all that decides the reply: model, parameters, version of the prompt, text.
        body: the request, JSON-ready.
        tokens: an estimate of its cost.
        about: what the cache says of it to people, JSON-ready.
    """

    key: str
    body: Mapping[str, Any]
    tokens: float
    about: Mapping[str, Any]


class Service:
    """Answers requests on a thread of its own.

    Args:
        options: the server, and how it is asked.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.statistics = Statistics()
        self.last_failure = ""
        self._lock = threading.Lock()
        self._scores: OrderedDict[str, Future[float | None]] = OrderedDict()
        self._client = make_client(options, self.statistics, processes=int(os.environ.get("WORLD_SIZE", "1")))
        self._cache = None if options.cache is None else ReplyCache(options.cache)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge-cache")  # one: so is the connection
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> Future[float | None]:
        """The score, later; ``None`` where there is none after the last attempt. From any thread.

        What is being asked, or was answered, is not asked again.
        """
        with self._lock:
            shared = self._scores.get(request.key)
            if known := shared is not None:
                self._scores.move_to_end(request.key)
            else:
                shared = asyncio.run_coroutine_threadsafe(self._answer(request), self._loop)
                self._scores[request.key] = shared
                while len(self._scores) > _REMEMBERED:
                    self._scores.popitem(last=False)
        self.statistics.add(questions=1, known=int(known))
        if not known:
            shared.add_done_callback(lambda done: self._forget_failure(request.key, done))
        shared.add_done_callback(lambda done: self.statistics.add(unscored=int(_failed(done))))
        return then(shared, lambda score: score)  # settled after it is counted

    def close(self) -> None:
        """Give up what is being asked, and end the threads."""
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._cache is not None:
            self._disk.submit(self._cache.close).result()
        self._disk.shutdown()

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()

    async def _answer(self, request: Request) -> float | None:
        if self._cache is not None:
            kept = await self._loop.run_in_executor(self._disk, self._cache.get, request.key)
            if kept is not None and (known := parse_verdict(kept.text)) is not None:
                self.statistics.add(known=1)
                return known
        try:
            reply, score = await self._client.complete(request.body, tokens=request.tokens, accept=with_verdict)
        except (*FAILURES, JudgeError) as error:
            self._note(reason(error))
            return None
        if self._cache is not None:
            await self._loop.run_in_executor(self._disk, self._cache.put, request.key, reply, dict(request.about))
        return score

    def _forget_failure(self, key: str, done: Future[float | None]) -> None:
        if _failed(done):
            with self._lock:
                if self._scores.get(key) is done:
                    del self._scores[key]

    def _note(self, failure: str) -> None:
        if not self.last_failure:  # once: a judge that is down fails for every completion of a step
            _log.warning("the judge left an answer unscored: %s; later ones are only counted", failure)
        self.last_failure = failure


def _failed(done: Future[float | None]) -> bool:
    return done.cancelled() or done.exception() is not None or done.result() is None


def make_client(options: ServiceOptions, statistics: Statistics, *, processes: int) -> ChatClient:
    """A client as the options say."""
    return ChatClient(
        options.endpoint,
        options.limits,
        response_format=SCHEMA if options.structured_output else None,
        processes=processes,
        statistics=statistics,
    )


def with_verdict(reply: Reply) -> tuple[Reply, float]:
    """The reply and its score.

    Raises:
        TransientError: it holds none. Another attempt may bring one.
    """
    score = parse_verdict(reply.text)
    if score is None:
        raise TransientError(f'the reply is {reply.text[:80]!r}, expected {{"score": 0 to 1}}')
    return reply, score


# ---- the services of this process ----

_services: dict[ServiceOptions, Service] = {}
_services_lock = threading.Lock()
_of_parent: list[object] = []


def service(options: ServiceOptions) -> Service:
    """The one service of this process with these options, started now if need be."""
    with _services_lock:
        if options not in _services:
            _services[options] = Service(options)
        return _services[options]


def running(options: ServiceOptions) -> Service | None:
    """The same, ``None`` where nothing was asked yet."""
    return _services.get(options)


def close_all() -> None:
    """Close all services of this process."""
    with _services_lock:
        while _services:
            _services.popitem()[1].close()


def _begin_anew() -> None:
    """In a forked process the threads are gone, and a lock may be held by one of them for ever."""
    global _services, _services_lock
    _of_parent.append(_services)  # not collected here: their sockets are those of the parent
    _services, _services_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_begin_anew)
