"""Reader of a chat server's reply, with a size limit: the text and its token counts, or the reason of a failure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from grit_lightning.system.retries import PermanentError, TransientError, is_transient_status, retry_after

_MAX_MESSAGE = 200
"""Maximum number of characters with which a message quotes a server's error text."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of a model.

    Attributes:
        text: text of the reply.
        prompt_tokens: tokens of the prompt as counted by the server; 0 if it reports none.
        completion_tokens: tokens of the reply as counted by the server; 0 if it reports none.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int


async def read_reply(response: httpx.Response, *, max_bytes: int, key: str) -> Reply:
    """Read a streamed response.

    Args:
        response: response whose body has not been read yet.
        max_bytes: maximum size of the body in bytes.
        key: key of the request, which is replaced by ``***`` if the server repeats it.

    Raises:
        PermanentError, TransientError: the response is not a reply of a model.
        httpx.TransportError: the connection broke.
    """
    status = response.status_code
    if status != httpx.codes.OK:
        body = await _read(response, max_bytes, key, whole=False)
        message = _status_line(response, body)
        if is_transient_status(status):
            raise TransientError(message, retry_after(response))
        raise PermanentError(message, status)
    kind = response.headers.get("content-type", "none").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise TransientError(f"the reply's content type is {kind[:50]!r}, expected application/json")
    return _parse(await _read(response, max_bytes, key, whole=True))


async def _read(response: httpx.Response, max_bytes: int, key: str, *, whole: bool) -> str:
    # Compression was not requested, and the unpacked body could exceed max_bytes.
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise TransientError("the reply is compressed")
    chunks, size = [], 0
    async for chunk in response.aiter_raw(16_384):
        size += len(chunk)
        if size > max_bytes:
            if whole:
                raise TransientError(f"the reply is longer than {max_bytes} bytes")
            break
        chunks.append(chunk)
    text = b"".join(chunks).decode("utf-8", "replace")
    return text.replace(key, "***") if key else text


def _parse(body: str) -> Reply:
    try:
        fields = json.loads(body, parse_int=float)
        text = fields["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise TransientError("the reply is not a chat completion in JSON") from error
    if not isinstance(text, str):
        raise TransientError("the reply contains no text")
    usage = fields.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    return Reply(text, _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens")))


def _count(value: Any) -> int:
    return int(value) if isinstance(value, float) and 0 <= value < 1e9 else 0


def _status_line(response: httpx.Response, body: str) -> str:
    """Return a line such as ``HTTP 401 Unauthorized: Incorrect API key provided``."""
    line = f"HTTP {response.status_code} {response.reason_phrase}".strip()
    try:
        said = json.loads(body)["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return line
    return f"{line}: {' '.join(said.split())[:_MAX_MESSAGE].rstrip('.')}" if isinstance(said, str) else line
