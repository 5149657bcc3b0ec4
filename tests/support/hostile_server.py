"""A local HTTP server that serves given files and misbehaves in given ways.

``server.files[path]`` is served correctly: complete, with length and entity tag, and by ranges. ``server.moods[path]``
lists what happens instead to the next requests of that path, one mood per request; ``Forever(mood)`` is not used up.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

HEADERS = ("Range", "If-Range", "Accept-Encoding", "Authorization")


class Request(NamedTuple):
    path: str
    range: str | None
    if_range: str | None
    accept_encoding: str | None
    authorization: str | None
    time: float


@dataclass
class HostileServer:
    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    moods: dict[str, list[Mood]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    delay: float = 0.0
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def mood_for(self, path: str) -> Mood:
        with self.lock:
            moods = self.moods.get(path, [])
            if moods and isinstance(moods[0], Forever):
                return moods[0].mood
            return moods.pop(0) if moods else well


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    home: HostileServer

    def do_GET(self) -> None:
        home = self.home
        with home.lock:
            home.requests.append(
                Request(
                    self.path,
                    *(self.headers.get(name) for name in HEADERS),
                    time.monotonic(),
                )
            )
            home.busy += 1
            home.most_busy = max(home.most_busy, home.busy)
        try:
            time.sleep(home.delay)
            home.mood_for(self.path)(self)
        finally:
            with home.lock:
                home.busy -= 1

    def log_message(self, *_: object) -> None:
        pass

    def content(self) -> bytes | None:
        return self.home.files.get(self.path)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        self.head(status, Content_Length=len(body), **headers)
        self.wfile.write(body)


Mood = Callable[[Handler], None]


class Forever(NamedTuple):
    mood: Mood


def etag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def well(handler: Handler) -> None:
    body = handler.content()
    if body is None:
        handler.answer(404, b"nothing here")
        return
    start = handler.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
    if not start or handler.headers.get("If-Range") not in (None, etag(body)):
        handler.answer(200, body, ETag=etag(body))
    elif int(start) >= len(body):
        handler.answer(416, Content_Range=f"bytes */{len(body)}")
    else:
        rest = body[int(start) :]
        content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
        handler.answer(206, rest, ETag=etag(body), Content_Range=content_range)


def whole(handler: Handler) -> None:
    """Send the whole body, as a server without range support does."""
    body = handler.content() or b""
    handler.answer(200, body, ETag=etag(body))


def status(code: int, **headers: object) -> Mood:
    return lambda handler: handler.answer(code, b"<html>error</html>", **headers)


def redirect(to: str) -> Mood:
    return lambda handler: handler.answer(302, Location=to)


def web_page(handler: Handler) -> None:
    handler.answer(200, b"<html>Please log in</html>", Content_Type="text/html; charset=utf-8")


def instead(body: bytes, **headers: object) -> Mood:
    return lambda handler: handler.answer(200, body, ETag=etag(body), **headers)


def zipped(handler: Handler) -> None:
    handler.answer(200, gzip.compress(handler.content() or b""), Content_Encoding="gzip", ETag='"zipped"')


def cut(mood: Mood, count: int) -> Mood:
    """Send the response of ``mood``, cut off after ``count`` bytes of the body."""

    def act(handler: Handler) -> None:
        write = handler.wfile.write
        handler.wfile.write = lambda data: write(data if data.startswith(b"HTTP/") else data[:count])  # type: ignore[method-assign]
        mood(handler)
        handler.close_connection = True

    return act


def without_etag(mood: Mood) -> Mood:
    """Send the response of ``mood`` without its entity tag."""

    def act(handler: Handler) -> None:
        send_header = handler.send_header
        handler.send_header = lambda name, value: None if name == "ETag" else send_header(name, value)  # type: ignore[method-assign]
        mood(handler)

    return act


def truncated(count: int) -> Mood:
    """Announce the full length, send ``count`` bytes, and close the connection."""
    return cut(whole, count)


def unannounced(count: int) -> Mood:
    """Send ``count`` bytes without a length and close, as in HTTP/1.0: the client cannot see that bytes are missing."""

    def act(handler: Handler) -> None:
        handler.head(200, Connection="close")
        handler.wfile.write((handler.content() or b"")[:count])
        handler.close_connection = True

    return act


def stalled(count: int) -> Mood:
    """Send ``count`` bytes, then nothing until the server is released."""

    def act(handler: Handler) -> None:
        truncated(count)(handler)
        handler.home.released.wait(60)

    return act


def reset(count: int) -> Mood:
    """Send ``count`` bytes, then reset the connection."""

    def act(handler: Handler) -> None:
        truncated(count)(handler)
        time.sleep(0.1)  # a reset overtakes what the client has not read yet
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(handler.connection.detach())

    return act


def another_range(handler: Handler) -> None:
    """Answer a request for the rest of a file with a range that starts at its beginning."""
    body = handler.content() or b""
    handler.answer(206, body, ETag=etag(body), Content_Range=f"bytes 0-{len(body) - 1}/{len(body)}")


def another_version(handler: Handler) -> None:
    """Send the requested range of the changed file, although the request was conditional on an unchanged one."""
    body = handler.content() or b""
    start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
    handler.answer(206, body[start:], ETag=etag(body), Content_Range=content_range)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that leaves is no error
            super().handle_error(request, client_address)


@contextmanager
def serve() -> Iterator[HostileServer]:
    home = HostileServer()
    server = Server(("127.0.0.1", 0), type("HomeHandler", (Handler,), {"home": home}))
    home.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield home
    finally:
        home.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
