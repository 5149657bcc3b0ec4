"""Fixtures of a judge that asks a local server, which fails on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from grit_lightning.judge.chat.client import Limits
from grit_lightning.judge.chat.endpoint import Endpoint
from grit_lightning.judge.chat.reply_cache import CacheOptions
from grit_lightning.judge.chat.service import close_all
from grit_lightning.judge.llm import LLMJudge, Price
from grit_lightning.system.paths import asset
from support.chat_server import ChatServer

PROMPT = asset("judge/answer.txt")
QUICK = {
    "concurrency": 32, "requests_per_minute": None, "tokens_per_minute": None, "connect_timeout": 5.0,
    "read_timeout": 20.0, "total_timeout": 30.0, "attempts": 3, "backoff": 0.01, "max_wait": 0.05,
    "max_reply_bytes": 200_000,
}  # fmt: skip

MakeJudge = Callable[..., LLMJudge]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("JUDGE_API_KEY", raising=False)
    server = ChatServer()
    yield server
    close_all()
    server.kill()


@pytest.fixture
def make_judge(chat: ChatServer, tmp_path: Path) -> MakeJudge:
    """Return a function that makes a judge with short waits.

    Keyword arguments change limits, endpoint or judge; ``cache=False`` makes it without a cache.
    """

    def make(*, cache: bool = True, kind: type[Endpoint] = Endpoint, **changes: Any) -> LLMJudge:
        def chosen(defaults: dict[str, Any]) -> dict[str, Any]:
            return {name: changes.pop(name, value) for name, value in defaults.items()}

        address = {"url": chat.url, "key_variable": "JUDGE_API_KEY", "key_required": False, "may_lack_schemas": True}
        extra = {name: changes.pop(name) for name in ("deployment", "api_version") if name in changes}
        endpoint = kind(**chosen(address), **extra)
        limits = Limits(**chosen(QUICK))
        folder = CacheOptions(folder=str(tmp_path / "cache"), max_bytes=10**8)
        own = {
            "model": "judge-1",
            "parameters": {"temperature": 0.0, "seed": 0, "max_tokens": 64},
            "structured_output": "schema",
            "prompt": str(PROMPT),
            "price": Price(prompt=2.0, completion=10.0),
            "max_unscored": 0.25,
            "patience": 3,
        }
        judge = LLMJudge(endpoint=endpoint, limits=limits, cache=folder if cache else None, **{**own, **changes})
        return judge

    return make
