"""The retry rule of every HTTP request: which failures may pass, and how long to wait before the next attempt."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

_TRY_LATER = (408, 409, 425, 429)
"""Statuses below 500 after which the same request may succeed (RFC 9110, RFC 8470, RFC 6585)."""


class PermanentError(Exception):
    """The server answered, and the same request would bring the same answer.

    Args:
        message: the answer, in words.
        status: its HTTP status; 0 where the answer was unusable for another reason.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TransientError(Exception):
    """A failure that may pass.

    Args:
        message: what went wrong.
        wait: seconds that the server asked to wait before the next attempt.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def is_transient_status(status: int) -> bool:
    """Tell whether the same request may succeed after this HTTP status."""
    return status in _TRY_LATER or status >= 500


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed after this exception."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):  # such as a redirect to ftp://
        return False
    return isinstance(error, TransientError | httpx.TransportError | httpx.DecodingError | TimeoutError)


def retrying(*, attempts: int, backoff: float, max_wait: float) -> AsyncRetrying:
    """Return tenacity's retry loop for one request; the last attempt's exception is raised.

    Args:
        attempts: how often the request is sent at most.
        backoff: the wait before attempt n + 1 is random, up to ``backoff`` · 2^(n−1) seconds, plus what the server
            asked for.
        max_wait: seconds that each of these two waits is limited to.
    """
    random_wait = wait_random_exponential(multiplier=backoff, max=max_wait)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = min(error.wait, max_wait) if isinstance(error, TransientError) else 0.0
        return random_wait(state) + asked

    return AsyncRetrying(
        retry=retry_if_exception(is_transient), stop=stop_after_attempt(attempts), wait=wait, reraise=True
    )


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that ``Retry-After`` asks to wait, given as a number or a date (RFC 9110, 10.2.3); else 0."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
