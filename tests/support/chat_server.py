"""A chat-completions server in a separate process, whose faults are chosen by the text of each request.

The judged answer may contain ``[score=0.5 faults=429,drop]``: the first two requests about it fail in these ways, the
third gets the score 0.5. ``faults=hang*`` fails every time. The score of any other text is a hash of it.

``python chat_server.py PORT`` prints its port. ``GET /stats`` returns counts; ``POST /control`` changes the behaviour:
``delay`` (seconds), ``schemas`` (accept ``response_format`` and lists of choices), ``key`` (required API key), ``say``
(a fixed reply), ``enforce`` (reply with the nearest of the verdicts to which the request restricts the server).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLAN = re.compile(r"\[score=(\S+) faults=(\S*)\]")


def score_of(text: str) -> float:
    """Return the score of a text without a plan: one of four values, about equally frequent."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % 4 / 3


def allowed(body: dict[str, Any]) -> list[str]:
    """Return the replies to which a request restricts the server; none if it may reply freely."""
    if "response_format" in body:
        score = body["response_format"]["json_schema"]["schema"]["properties"]["score"]
        return [json.dumps({"score": value}) for value in score["enum"]]
    return body.get("structured_outputs", {}).get("choice") or body.get("guided_choice") or []


def nearest(replies: list[str], score: float) -> str:
    """Return the reply with the score that is nearest to ``score``."""
    return min(replies, key=lambda reply: abs(json.loads(reply)["score"] - score))


class State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.seen: list[dict[str, Any]] = []
        self.busy = self.most_busy = 0
        self.times: list[float] = []
        self.control: dict[str, Any] = {"delay": 0.0, "schemas": True, "key": None, "say": None, "enforce": False}


class Chat(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        with state.lock:
            stats = {
                "requests": sum(state.asked.values()),
                "most": max(state.asked.values(), default=0),
                "questions": len(state.asked),
                "most_busy": state.most_busy,
                "times": state.times,
                "last": state.seen[-1:],
            }
        self.send(200, json.dumps(stats).encode())

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        content = self.rfile.read(length)
        if len(content) < length:  # the client has left
            return
        body = json.loads(content)
        if self.path == "/control":
            self.state.control |= body
            self.send(200, b"{}")
            return
        state = self.state
        text = json.dumps(body["messages"])
        with state.lock:
            state.asked[text] += 1
            number = state.asked[text]
            state.seen[:] = [{"path": self.path, "headers": dict(self.headers), "body": body}]
            state.busy += 1
            state.most_busy = max(state.most_busy, state.busy)
            state.times.append(time.time())
        try:
            time.sleep(state.control["delay"])
            self.answer(body, text, number)
        except ConnectionError:
            pass  # the client has left, as after a hang
        finally:
            with state.lock:
                state.busy -= 1

    def answer(self, body: dict[str, Any], text: str, number: int) -> None:
        control = self.state.control
        key = self.headers.get("Authorization", self.headers.get("api-key", "")).removeprefix("Bearer ")
        if control["key"] is not None and key != control["key"]:
            self.error(401, f"Incorrect API key provided: {key}.")
            return
        unknown = [name for name in ("response_format", "structured_outputs", "guided_choice") if name in body]
        if unknown and not control["schemas"]:
            self.error(400, f"Unknown field: {unknown[0]}.")
            return
        plan = PLAN.search(text)
        score, faults = (plan[1], plan[2]) if plan else (json.dumps(score_of(text)), "")
        for_ever = faults.endswith("*")
        moods = faults.rstrip("*").split(",") if faults.rstrip("*") else []
        if for_ever or number <= len(moods):
            FAULTS[moods[(number - 1) % len(moods)]](self)
        elif control["enforce"] and allowed(body):
            self.verdict(nearest(allowed(body), float(score)))
        elif control["say"] is not None:
            self.verdict(control["say"].replace("KEY", key))
        else:
            self.verdict(f'{{"score": {score}}}')

    def verdict(self, content: str, padding: int = 0) -> None:
        reply = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
            "padding": "x" * padding,
        }
        self.send(200, json.dumps(reply).encode())

    def error(self, status: int, message: str, **headers: str) -> None:
        self.send(status, json.dumps({"error": {"message": message}}).encode(), **headers)

    def send(
        self, status: int, body: bytes, *, kind: str = "application/json", length: int = 0, **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def leave(self) -> None:
        self.close_connection = True


def drop(chat: Chat) -> None:
    chat.leave()


def reset(chat: Chat) -> None:
    chat.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(chat.connection.detach())
    chat.wfile = chat.rfile = open(os.devnull, "r+b", 0)  # noqa: SIM115  (the handler closes them)
    chat.leave()


def truncated(chat: Chat) -> None:
    chat.send(200, b'{"choices": [{"message": {"content": "{\\"score\\": 1}"}}', length=1000)
    chat.leave()


def drip(chat: Chat) -> None:
    """Send one byte at a time: no single read is slow, but the whole reply takes ten seconds and stays incomplete."""
    chat.send(200, b"", length=1000)
    for _ in range(100):
        chat.wfile.write(b" ")
        time.sleep(0.1)


def hang(chat: Chat) -> None:
    time.sleep(8)
    chat.leave()


def hostile_status(chat: Chat) -> None:
    chat.wfile.write(b"HTTP/1.1 400 Bad\tRequest\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n")


Fault = Callable[[Chat], None]
FAULTS: dict[str, Fault] = {
    "408": lambda chat: chat.error(408, "too slow"),
    "409": lambda chat: chat.error(409, "conflict"),
    "429": lambda chat: chat.error(429, "slow down", Retry_After="0.05"),  # no whole number: not understood
    "429s": lambda chat: chat.error(429, "slow down", Retry_After="1"),
    "429d": lambda chat: chat.error(429, "slow down", Retry_After=formatdate(time.time() + 1, usegmt=True)),
    "429l": lambda chat: chat.error(429, "slow down", Retry_After="9" * 400),
    "500": lambda chat: chat.error(500, "broken"),
    "503": lambda chat: chat.send(503, b"<html>away</html>", kind="text/html"),
    "drop": drop,
    "reset": reset,
    "hang": hang,
    "drip": drip,
    "truncated": truncated,
    "malformed": lambda chat: chat.send(200, b'{"choices": [{"message": {"content": "{\\"score\\": 1}"'),
    "nested": lambda chat: chat.send(200, b"[" * 50_000),
    "empty": lambda chat: chat.send(200, b"{}"),
    "array": lambda chat: chat.send(200, b"[1]"),
    "null": lambda chat: chat.send(200, b'{"choices": [{"message": {"content": null}}]}'),
    "range": lambda chat: chat.verdict('{"score": 7}'),
    "negative": lambda chat: chat.verdict('{"score": -0.5}'),
    "nan": lambda chat: chat.verdict('{"score": NaN}'),
    "prose": lambda chat: chat.verdict('I would say {"score": 1}'),
    "html": lambda chat: chat.send(200, b'{"choices": [{"message": {"content": "{}"}}]}', kind="text/html"),
    "huge": lambda chat: chat.verdict('{"score": 1}', padding=5_000_000),
    "400": lambda chat: chat.error(400, "bad request"),
    "hostile_message": lambda chat: chat.error(400, "\x1b]0;owned\x07 \x9b2J \u202e one\r\ntwo"),
    "hostile_type": lambda chat: chat.send(200, b"{}", kind="text/\t\x9bhtml"),
    "hostile_status": hostile_status,
    "403": lambda chat: chat.error(403, "forbidden"),
    "404": lambda chat: chat.error(404, "no such model"),
    "redirect": lambda chat: chat.send(302, b"", Location="http://127.0.0.1:9/elsewhere"),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class ChatServer:
    """Handle of the server process for tests: start it, kill it, and start it again on the same port."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", __file__, str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def control(self, **changes: Any) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/control", json.dumps(changes).encode())
        with _direct.open(request, timeout=30):
            pass

    def stats(self) -> dict[str, Any]:
        with _direct.open(f"http://127.0.0.1:{self.port}/stats", timeout=30) as response:
            return json.load(response)


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

if __name__ == "__main__":
    server = _Server(("127.0.0.1", int(sys.argv[1])), type("Bound", (Chat,), {"state": State()}))
    print(server.server_address[1], flush=True)
    server.serve_forever(0.05)
