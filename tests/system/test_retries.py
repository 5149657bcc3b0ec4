"""Tests of the retry policy: which failures are temporary, and how long to wait."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import httpx
import pytest

from grit_lightning.system.retries import (
    PermanentError,
    TransientError,
    is_transient,
    is_transient_status,
    retry_after,
    retrying,
)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 599])
def test_timeouts_conflicts_rate_limits_and_server_errors_are_temporary(status: int) -> None:
    assert is_transient_status(status)


@pytest.mark.parametrize("status", [200, 204, 304, 400, 401, 403, 404, 410, 422, 499])
def test_other_statuses_are_permanent(status: int) -> None:
    assert not is_transient_status(status)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ConnectTimeout("slow"), True),
        (httpx.ReadTimeout("slow"), True),
        (httpx.ReadError("reset"), True),
        (httpx.RemoteProtocolError("closed early"), True),
        (httpx.DecodingError("bad gzip"), True),
        (TimeoutError(), True),
        (TransientError("HTTP 503"), True),
        (PermanentError("HTTP 404", 404), False),
        (httpx.UnsupportedProtocol("ftp"), False),  # both are transport errors in httpx
        (httpx.LocalProtocolError("bad header"), False),
        (httpx.InvalidURL("no host"), False),
        (httpx.TooManyRedirects("loop"), False),
        (ValueError("bug"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_of_the_connection_are_temporary_and_invalid_requests_are_not(
    error: BaseException, expected: bool
) -> None:
    assert is_transient(error) is expected


def asked(value: str | None) -> float:
    return retry_after(httpx.Response(429, headers={} if value is None else {"Retry-After": value}))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        (None, 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1.5", 0.0),  # RFC 9110 allows whole seconds only
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),  # in the past
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_whole_seconds_and_anything_else_is_no_wait(value: str | None, seconds: float) -> None:
    assert asked(value) == seconds


def test_retry_after_as_a_date_is_the_time_until_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    assert asked(formatdate(1_700_000_042, usegmt=True)) == 42.0
    assert asked(formatdate(1_699_999_999, usegmt=True)) == 0.0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the waits between attempts instead of waiting."""
    recorded: list[float] = []

    async def sleep(seconds: float) -> None:
        recorded.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return recorded


def send(*failures: Exception, attempts: int = 4, backoff: float = 0.1, max_wait: float = 2.0) -> tuple[str, int]:
    """Send a request that fails in these ways before it succeeds; return its result and the number of attempts."""
    left, count = list(failures), 0

    async def request() -> str:
        nonlocal count
        async for attempt in retrying(attempts=attempts, backoff=backoff, max_wait=max_wait):
            with attempt:
                count += 1
                if left:
                    raise left.pop(0)
                return "answer"
        raise AssertionError("the loop ended without a result")

    return asyncio.run(request()), count


def test_the_request_is_repeated_until_it_succeeds(waits: list[float]) -> None:
    assert send() == ("answer", 1)
    assert waits == []
    assert send(TransientError("HTTP 500"), httpx.ReadError("reset")) == ("answer", 3)
    assert len(waits) == 2


def test_the_last_of_the_allowed_attempts_raises_its_own_error(waits: list[float]) -> None:
    failures = [TransientError(f"HTTP 500, attempt {number}") for number in range(1, 9)]
    with pytest.raises(TransientError, match="attempt 3"):
        send(*failures, attempts=3)
    assert len(waits) == 2


def test_a_permanent_error_is_raised_at_once(waits: list[float]) -> None:
    with pytest.raises(PermanentError, match="HTTP 404"):
        send(PermanentError("HTTP 404", 404), TransientError("HTTP 500"))
    assert waits == []


def test_each_wait_is_at_least_what_the_server_asked(waits: list[float]) -> None:
    send(*[TransientError("HTTP 429", wait=1.5)] * 3, backoff=0.1)
    assert [1.5 <= wait <= 1.5 + 0.1 * 2**number for number, wait in enumerate(waits)] == [True] * 3


def test_the_wait_asked_by_the_server_is_limited_to_max_wait(waits: list[float]) -> None:
    send(*[TransientError("HTTP 429", wait=3600.0)] * 3, backoff=1e-9, max_wait=2.0)
    assert waits == pytest.approx([2.0] * 3)


def test_the_random_wait_doubles_up_to_max_wait(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    send(*[TransientError("HTTP 500")] * 5, attempts=6, backoff=0.5, max_wait=3.0)
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]
