"""Background threads that send questions: one thread and event loop per server, shared by all judges of this process.

Limits, cache and statistics apply to a server, so they belong to the service and not to a judge. A judge contains plain
values only, so that it can be copied, pickled and forked; it looks up its service when it sends a question.
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
from grit_lightning.judge.verdict import REQUEST_FIELDS, parse_verdict
from grit_lightning.system.retries import TransientError

_log = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""Number of scores kept in memory, so that identical questions are sent once even without a cache on disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceOptions:
    """Settings of a service; judges with equal settings share one."""

    endpoint: Endpoint
    limits: Limits
    cache: CacheOptions | None
    structured_output: str


@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """A question in the form in which it is sent.

    Attributes:
        key: hash of everything that determines the reply: model, parameters, version of the prompt, text and images.
        body: body of the request, JSON-ready.
        tokens: estimated cost of the request in tokens.
        about: description for human readers of the cache, JSON-ready.
    """

    key: str
    body: Mapping[str, Any]
    tokens: float
    about: Mapping[str, Any]


class Service:
    """Answers requests on its own thread.

    Args:
        options: settings of the server and its requests.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.statistics = Statistics()
        self.last_failure = ""
        self._lock = threading.Lock()
        self._scores: OrderedDict[str, Future[float | None]] = OrderedDict()
        self._client = make_client(options, self.statistics, processes=int(os.environ.get("WORLD_SIZE", "1")))
        self._cache = None if options.cache is None else ReplyCache(options.cache)
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judge-cache")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> Future[float | None]:
        """Return a future of the score, or of ``None`` if the last attempt failed. Any thread may call this.

        A question that is already in progress or answered is not sent again.
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
        return then(shared, lambda score: score)  # a new future, which completes after the callbacks above

    def close(self) -> None:
        """Cancel the requests in progress and end the threads."""
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._disk.shutdown()
        if self._cache is not None:
            self._cache.close()

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
        if not self.last_failure:  # warn once: if the server is down, every completion of a step fails
            _log.warning(
                "the judge could not score an answer: %s; later failures are counted without a warning", failure
            )
        self.last_failure = failure


def _failed(done: Future[float | None]) -> bool:
    return done.cancelled() or done.exception() is not None or done.result() is None


def make_client(options: ServiceOptions, statistics: Statistics, *, processes: int) -> ChatClient:
    """Return a client with these options."""
    return ChatClient(
        options.endpoint,
        options.limits,
        restriction=REQUEST_FIELDS[options.structured_output],
        processes=processes,
        statistics=statistics,
    )


def with_verdict(reply: Reply) -> tuple[Reply, float]:
    """Return the reply and its score.

    Raises:
        TransientError: the reply contains no score; another attempt may succeed.
    """
    score = parse_verdict(reply.text)
    if score is None:
        raise TransientError(f'the reply is {reply.text[:80]!r}, expected {{"score": 0 to 1}}')
    return reply, score


# ---- the services of this process ----

_services: dict[ServiceOptions, Service] = {}
_services_lock = threading.Lock()
_services_of_parent: list[object] = []


def service(options: ServiceOptions) -> Service:
    """Return this process's service with these options, and start it if it is not running."""
    with _services_lock:
        if options not in _services:
            _services[options] = Service(options)
        return _services[options]


def running(options: ServiceOptions) -> Service | None:
    """Return this process's service with these options, or ``None`` if it is not running."""
    return _services.get(options)


def close_all() -> None:
    """Close all services of this process."""
    with _services_lock:
        while _services:
            _services.popitem()[1].close()


def _reset_after_fork() -> None:
    """Forget all services in a forked process: their threads are gone, and may have left a lock held."""
    global _services, _services_lock
    _services_of_parent.append(_services)  # prevents garbage collection, which would touch the parent's sockets
    _services, _services_lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_reset_after_fork)
