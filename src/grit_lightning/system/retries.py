"""The retry policy of all HTTP requests: which failures are temporary, and how long to wait before the next attempt."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

_TRY_LATER = (408, 409, 425, 429)
"""HTTP statuses below 500 after which the same request may succeed (RFC 9110, RFC 8470, RFC 6585)."""


class PermanentError(Exception):
    """A failure that a retry would repeat, because the server would send the same answer again.

    Args:
        message: description of the answer.
        status: HTTP status of the answer; 0 if the answer is unusable for another reason.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class TransientError(Exception):
    """A temporary failure: a retry may succeed.

    Args:
        message: description of the failure.
        wait: seconds that the server asks to wait before the next attempt.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def is_transient_status(status: int) -> bool:
    """Tell whether the same request may succeed after this HTTP status."""
    return status in _TRY_LATER or status >= 500


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed after this exception."""
    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):  # for example a redirect to ftp://
        return False
    return isinstance(error, TransientError | httpx.TransportError | httpx.DecodingError | TimeoutError)


def retrying(*, attempts: int, backoff: float, max_wait: float) -> AsyncRetrying:
    """Return tenacity's retry loop for one request; the last attempt's exception is raised.

    Args:
        attempts: maximum number of times that the request is sent.
        backoff: scale of the random wait between attempts: up to ``backoff`` · 2^(n−1) seconds before attempt n + 1,
            plus the wait that the server requests.
        max_wait: upper limit of each of these two waits, in seconds.
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
    """Return the wait in seconds that ``Retry-After`` requests as a number or a date (RFC 9110, 10.2.3), or 0."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
