"""Tests of the reply cache: readable, bounded, shared by processes, and never a reason for a run to fail."""

from __future__ import annotations

import json
import logging
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import diskcache
import pytest

from grit_lightning.errors import ConfigError
from grit_lightning.judge.chat.reply import Reply
from grit_lightning.judge.chat.reply_cache import CacheOptions, ReplyCache
from grit_lightning.judge.chat.service import close_all
from support.chat_server import ChatServer

REPLY = Reply('{"score": 0.5} \ud800', 100, 7)


def cache_in(folder: Path, max_bytes: int = 10**8) -> ReplyCache:
    return ReplyCache(CacheOptions(folder=str(folder), max_bytes=max_bytes))


def test_a_stored_reply_is_found_after_reopening_the_cache(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    assert cache.get("key") is None
    cache.put("key", REPLY, {"model": "m", "asked": "text"})
    cache.close()
    other = cache_in(tmp_path)
    assert other.get("key") == REPLY
    other.close()


def test_cache_entries_are_human_readable_json(chat: ChatServer, make_judge, tmp_path: Path) -> None:
    make_judge()("How many?", "2", "answer [score=0.25 faults=]")
    close_all()
    connection = sqlite3.connect(tmp_path / "cache" / "cache.db")
    ((value,),) = connection.execute("select value from Cache").fetchall()
    connection.close()
    about = json.loads(value)
    assert about["reply"] == {"text": '{"score": 0.25}', "prompt_tokens": 100, "completion_tokens": 7}
    assert about["model"] == "judge-1"
    assert len(about["prompt_version"]) == 12
    assert "answer [score=0.25 faults=]" in about["asked"]


def test_the_least_recently_used_replies_are_dropped_to_stay_below_max_bytes(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, max_bytes=400_000)
    for number in range(300):
        cache.put(f"key {number}", Reply("x" * 5000, 0, 0), {})
        cache.get("key 0")  # in use, so it stays
    assert cache.get("key 299") is not None
    assert cache.get("key 0") is not None
    assert cache.get("key 1") is None
    cache.close()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 800_000


WRITER = """
import sys
from grit_lightning.judge import CacheOptions
from grit_lightning.judge.chat.reply_cache import ReplyCache
from grit_lightning.judge.chat.reply import Reply
cache = ReplyCache(CacheOptions(folder=sys.argv[1], max_bytes=10**8))
for number in range(200):
    cache.put(f"{sys.argv[2]} {number}", Reply(sys.argv[2], number, 0), {})
    cache.put("shared", Reply("x" * 1000, 1, 1), {})
    assert cache.get("shared").text == "x" * 1000
cache.close()
"""


def test_several_processes_write_at_once_without_losing_a_reply(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    cache = cache_in(tmp_path)
    assert all(cache.get(f"{name} {number}") == Reply(name, number, 0) for name in "ab" for number in range(200))
    cache.close()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    "value", ["", "no JSON", "[]", "{}", '{"reply": 1}', '{"reply": {"text": "x"}}', 7, b"x", Bomb()]
)
def test_an_entry_that_is_no_reply_counts_as_missing(tmp_path: Path, value: object) -> None:
    foreign = diskcache.Cache(str(tmp_path))
    foreign.set("key", value)
    foreign.close()
    cache = cache_in(tmp_path)
    assert cache.get("key") is None
    cache.put("key", REPLY, {})
    assert cache.get("key") == REPLY
    cache.close()
    if isinstance(value, Bomb):
        with pytest.raises(SystemExit):
            pickle.loads(pickle.dumps(value))


def test_a_cached_reply_without_a_score_is_asked_again(chat: ChatServer, make_judge, tmp_path: Path) -> None:
    judge = make_judge()
    request = judge._question("How many?", "2", "answer [score=0.25 faults=]")
    cache = cache_in(tmp_path / "cache")
    cache.put(request.key, Reply("I would say 1", 1, 1), {})
    cache.close()
    assert judge("How many?", "2", "answer [score=0.25 faults=]") == 0.25
    assert chat.stats()["requests"] == 1


def test_an_unusable_cache_causes_one_warning_and_judging_continues(
    chat: ChatServer, make_judge, tmp_path: Path, caplog
) -> None:
    (tmp_path / "cache").write_text("in the way")
    judge = make_judge()
    assert [judge("How many?", "2", f"{n} [score=0.25 faults=]") for n in range(3)] == [0.25] * 3
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 1
    assert messages[0].startswith(f"the judge's cache {tmp_path / 'cache'} cannot be used: ")


def test_judging_continues_without_a_broken_database(chat: ChatServer, make_judge, tmp_path: Path, caplog) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").write_bytes(b"no database at all" * 1000)
    assert make_judge()("How many?", "2", "[score=0.25 faults=]") == 0.25
    assert "cannot be used" in caplog.text


def test_the_key_depends_on_words_model_parameters_and_prompt(make_judge, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Score. {question} {reference} {answer}")
    judges = [
        make_judge(),
        make_judge(model="judge-2"),
        make_judge(parameters={"temperature": 0.5}),
        make_judge(prompt=str(prompt)),
    ]
    asked = [("q", "r", "a"), ("q", "r", "b"), ("q", "ra", ""), ("qr", "", "a")]
    keys = {judge._question(*one).key for judge in judges for one in asked}
    assert len(keys) == len(judges) * len(asked)
    assert make_judge(attempts=7)._question("q", "r", "a").key == judges[0]._question("q", "r", "a").key


def test_max_bytes_below_1_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^judge\.cache\.max_bytes is 0, expected at least 1$"):
        CacheOptions(folder=str(tmp_path), max_bytes=0)
