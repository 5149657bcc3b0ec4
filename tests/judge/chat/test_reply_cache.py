"""Tests of the reply cache: readable, bounded, shared by processes, and never a reason for a run to fail."""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from grit_lightning.errors import ConfigError
from grit_lightning.judge.chat import reply_cache
from grit_lightning.judge.chat.reply import Reply
from grit_lightning.judge.chat.reply_cache import FILE, CacheOptions, ReplyCache
from grit_lightning.judge.chat.service import close_all
from support.chat_server import ChatServer

REPLY = Reply('{"score": 0.5} \ud800', 100, 7)


def cache_in(folder: Path, max_bytes: int = 10**8) -> ReplyCache:
    return ReplyCache(CacheOptions(folder=str(folder), max_bytes=max_bytes))


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the cache's file as another program would."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        yield connection


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_stored_reply_is_found_after_reopening_the_cache(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    assert cache.get("key") is None
    cache.put("key", REPLY, {"model": "m", "asked": "text"})
    cache.close()
    other = cache_in(tmp_path)
    assert other.get("key") == REPLY
    other.put("key", Reply("newer", 1, 2), {})
    assert other.get("key") == Reply("newer", 1, 2)
    other.close()


# ---- what people see ----


def test_cache_entries_are_human_readable_json(chat: ChatServer, make_judge, tmp_path: Path) -> None:
    make_judge()("How many?", "2", "answer [score=0.25 faults=]")
    close_all()
    with database(tmp_path / "cache") as connection:
        ((entry,),) = connection.execute("SELECT entry FROM replies").fetchall()
    about = json.loads(entry)
    assert about["reply"] == {"text": '{"score": 0.25}', "prompt_tokens": 100, "completion_tokens": 7}
    assert about["model"] == "judge-1"
    assert len(about["prompt_version"]) == 12
    assert "answer [score=0.25 faults=]" in about["asked"]


def test_an_entry_is_one_line_that_commands_no_terminal(tmp_path: Path) -> None:
    text = "\x1b[2J \x9b2J \x7f \u202e \n \ud800 猫"
    cache = cache_in(tmp_path)
    cache.put("key", Reply(text, 0, 0), {"asked": text})
    assert cache.get("key") == Reply(text, 0, 0)
    cache.close()
    with database(tmp_path) as connection:
        ((entry,),) = connection.execute("SELECT entry FROM replies").fetchall()
    assert entry.isascii()
    assert entry.isprintable()


def test_only_the_owner_can_read_what_the_cache_creates(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "cache")
    before = os.umask(0)
    try:
        cache.put("key", REPLY, {})
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()}
    finally:
        os.umask(before)
        cache.close()
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700
    assert modes == {FILE: 0o600, f"{FILE}-wal": 0o600, f"{FILE}-shm": 0o600}


def test_a_folder_that_exists_keeps_its_permissions(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    cache = cache_in(tmp_path)
    cache.put("key", REPLY, {})
    cache.close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_the_cache_of_an_earlier_version_is_left_alone(tmp_path: Path, caplog) -> None:
    (tmp_path / "cache.db").write_bytes(b"of diskcache")
    cache = cache_in(tmp_path)
    cache.put("key", REPLY, {})
    assert cache.get("key") == REPLY
    cache.close()
    assert (tmp_path / "cache.db").read_bytes() == b"of diskcache"
    assert warnings_in(caplog) == []


# ---- size ----


def test_the_least_recently_used_replies_are_dropped_to_stay_below_max_bytes(tmp_path: Path) -> None:
    cache = cache_in(tmp_path, max_bytes=400_000)
    for number in range(300):
        cache.put(f"key {number}", Reply("x" * 5000, 0, 0), {})
        cache.get("key 0")  # in use, so it stays
    kept = [number for number in range(300) if cache.get(f"key {number}") is not None]
    cache.close()
    assert kept == [0, *range(kept[1], 300)], "key 0, and the newest of the others"
    assert len(kept) > 40
    assert (tmp_path / FILE).stat().st_size < 450_000


def test_small_replies_are_dropped_in_order_too(tmp_path: Path) -> None:
    """Many of them share a page of the database, which is free only when the last one has left."""
    cache = cache_in(tmp_path, max_bytes=100_000)
    for number in range(2000):
        cache.put(f"key {number}", Reply("x", 0, 0), {"asked": "y" * 100})
    kept = [number for number in range(2000) if cache.get(f"key {number}") is not None]
    cache.close()
    assert kept == list(range(2000 - len(kept), 2000))
    assert len(kept) > 150
    assert (tmp_path / FILE).stat().st_size < 120_000


def test_a_lower_limit_holds_after_the_next_reply(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    for number in range(3000):
        cache.put(f"key {number}", Reply("x" * 500, 0, 0), {})
    cache.close()
    smaller = cache_in(tmp_path, max_bytes=200_000)
    start = time.process_time()
    smaller.put("new", REPLY, {})
    assert time.process_time() - start < 1.0
    assert smaller.get("new") == REPLY
    kept = [number for number in range(3000) if smaller.get(f"key {number}") is not None]
    smaller.close()
    assert kept == list(range(3000 - len(kept), 3000))
    assert len(kept) > 100
    with database(tmp_path) as connection:
        free, pages, size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count", "page_size")
        )
    assert (pages - free) * size <= 200_000


def test_a_reply_above_the_limit_is_not_kept(tmp_path: Path, caplog) -> None:
    cache = cache_in(tmp_path, max_bytes=1)
    cache.put("key", REPLY, {})
    assert cache.get("key") is None
    cache.close()
    assert warnings_in(caplog) == []


# ---- processes and threads ----

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
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abcd"]
    messages = [writer.communicate(timeout=120)[1] for writer in writers]
    assert messages == [""] * 4
    assert [writer.returncode for writer in writers] == [0] * 4
    cache = cache_in(tmp_path)
    assert all(cache.get(f"{name} {number}") == Reply(name, number, 0) for name in "abcd" for number in range(200))
    cache.close()


def test_processes_that_create_the_file_at_once_all_use_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        folder, start = tmp_path / str(attempt), context.Barrier(8)
        processes = [context.Process(target=put_one, args=(folder, number, start)) for number in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=60)
        assert [process.exitcode for process in processes] == [0] * 8
        cache = cache_in(folder)
        assert [cache.get(str(number)) for number in range(8)] == [Reply("x", number, 0) for number in range(8)]
        cache.close()


def put_one(folder: Path, number: int, start) -> None:
    cache = cache_in(folder)
    start.wait(30)
    cache.put(str(number), Reply("x", number, 0), {})
    cache.close()


def test_opening_waits_for_a_process_that_writes_to_the_new_file(tmp_path: Path, caplog) -> None:
    """SQLite itself does not wait for such a lock when it switches the file to the write-ahead log."""
    with database(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        cache = cache_in(tmp_path)
        thread = threading.Thread(target=cache.put, args=("key", REPLY, {}))
        thread.start()
        time.sleep(0.3)
        other.execute("COMMIT")
        thread.join()
    assert cache.get("key") == REPLY
    cache.close()
    assert warnings_in(caplog) == []


def test_several_threads_share_one_cache_and_any_may_close_it(tmp_path: Path, caplog) -> None:
    cache, failures = cache_in(tmp_path), []

    def use(name: str) -> None:
        for number in range(100):
            cache.put(f"{name} {number}", Reply(name, number, 0), {})
            if cache.get(f"{name} {number}") != Reply(name, number, 0):
                failures.append((name, number))
            if number % 10 == 0:
                cache.close()

    threads = [threading.Thread(target=use, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    closer = threading.Thread(target=cache.close)
    closer.start()
    closer.join()
    assert failures == []
    assert warnings_in(caplog) == []
    assert cache._connection is None


def test_two_caches_of_one_folder_in_one_process_see_each_others_replies(tmp_path: Path) -> None:
    one, other = cache_in(tmp_path), cache_in(tmp_path)
    one.put("key", REPLY, {})
    assert other.get("key") == REPLY
    other.put("key 2", REPLY, {})
    one.close()
    assert other.get("key 2") == REPLY
    other.close()


def in_child(check) -> int:
    """Return the exit status of a forked process: 0 if ``check`` returns true there."""
    child = os.fork()
    if child == 0:  # no assertion here: its traceback would run pytest twice
        try:
            os._exit(0 if check() else 1)
        except BaseException:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def open_files() -> set[str]:
    return {os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="lists open files in /proc")
def test_a_forked_process_does_not_use_its_parents_connection(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.put("parent", REPLY, {})
    file = str((tmp_path / FILE).resolve())
    assert file in open_files()

    def check() -> bool:
        inherited = file in open_files()
        cache.put("child", Reply("x", 1, 0), {})
        found = cache.get("parent") == REPLY and cache.get("child") == Reply("x", 1, 0)
        cache.close()
        return found and not inherited

    assert in_child(check) == 0
    assert cache.get("child") == Reply("x", 1, 0)
    cache.put("parent 2", REPLY, {})
    assert cache.get("parent 2") == REPLY
    cache.close()


def test_a_fork_amid_the_writes_of_another_thread_leaves_both_processes_able_to_write(tmp_path: Path, caplog) -> None:
    cache, stop, written = cache_in(tmp_path), threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            cache.put(f"parent {len(written)}", REPLY, {})
            written.append(len(written))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(20):

            def check(key: str = f"child {number}") -> bool:
                cache.put(key, REPLY, {})
                return cache.get(key) == REPLY

            assert in_child(check) == 0
    finally:
        stop.set()
        thread.join()
    assert all(cache.get(f"parent {number}") == REPLY for number in written)
    assert all(cache.get(f"child {number}") == REPLY for number in range(20))
    cache.close()
    assert warnings_in(caplog) == []


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_closed_cache_leaves_no_connection_and_no_log(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.close()
    cache.put("key", REPLY, {})
    cache.close()
    cache.close()
    del cache
    gc.collect()  # Python 3.13 warns of a connection that was not closed
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


# ---- files that cannot be used ----


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"reply": 1}',
        '{"reply": {"text": "x"}}',
        '{"reply": {"text": 1, "prompt_tokens": 1, "completion_tokens": 1}}',
        '{"reply": {"text": "x", "prompt_tokens": "1", "completion_tokens": 1}}',
        '{"reply": {"text": "x", "prompt_tokens": 1, "completion_tokens": 1, "more": 1}}',
        "[" * 100_000,
        7,
        b"x",
        json.dumps({"reply": {"text": "x", "prompt_tokens": 1, "completion_tokens": 1}}).encode(),
        pickle.dumps(Bomb()),
    ],
    ids=range(14),
)
def test_an_entry_that_is_no_reply_counts_as_missing(tmp_path: Path, value: object, caplog) -> None:
    cache = cache_in(tmp_path)
    cache.put("key", REPLY, {})
    with database(tmp_path) as connection:
        connection.execute("UPDATE replies SET entry = ?", (value,))
    assert cache.get("key") is None
    cache.put("key", REPLY, {})
    assert cache.get("key") == REPLY
    cache.close()
    assert warnings_in(caplog) == []


def test_an_entry_that_is_no_utf_8_counts_as_missing(tmp_path: Path, caplog) -> None:
    cache = cache_in(tmp_path)
    cache.put("key", REPLY, {})
    with database(tmp_path) as connection:
        connection.execute("UPDATE replies SET entry = CAST(? AS TEXT)", (b"\xff\xfe",))
    assert cache.get("key") is None
    cache.close()
    assert warnings_in(caplog) == []


def test_the_pickle_of_these_tests_would_have_been_noticed() -> None:
    with pytest.raises(SystemExit, match="unpickled"):
        pickle.loads(pickle.dumps(Bomb()))


def break_it(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


def give_it_another_table(file: Path) -> None:
    with database(file.parent) as connection:
        connection.execute("CREATE TABLE replies (word TEXT)")


def put_a_folder_there(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("spoil", [break_it, give_it_another_table, put_a_folder_there], ids=lambda one: one.__name__)
def test_an_unusable_file_is_warned_of_once_and_acts_as_empty(tmp_path: Path, caplog, spoil) -> None:
    spoil(tmp_path / FILE)
    cache = cache_in(tmp_path)
    for _ in range(3):
        cache.put("key", REPLY, {})
        assert cache.get("key") is None
    cache.close()
    (message,) = warnings_in(caplog)
    assert message.startswith(f"the judge's cache {tmp_path} cannot be used: ")
    assert message.endswith("; questions may be paid for again")


def test_a_warning_repeats_no_escape_sequence_of_the_file(tmp_path: Path, caplog) -> None:
    with database(tmp_path) as connection:
        connection.execute("CREATE VIEW replies AS SELECT 1 AS key, 2 AS entry, 3 AS used")
        connection.execute("PRAGMA writable_schema = 1")
        connection.execute("UPDATE sqlite_master SET name = '\x1b[2J', sql = 'no SQL \x1b[2J'")
    cache_in(tmp_path).get("key")
    (message,) = warnings_in(caplog)
    assert r"\x1b[2J" in message
    assert message.isprintable()


def test_a_read_only_database_is_warned_of_once_and_its_replies_are_still_found(tmp_path: Path, caplog) -> None:
    cache = cache_in(tmp_path)
    cache.put("key", REPLY, {})
    cache._connection.execute("PRAGMA query_only = 1")  # file permissions do not stop the superuser
    cache.put("new", REPLY, {})
    cache.put("new", REPLY, {})
    assert cache.get("new") is None
    assert cache.get("key") == REPLY
    cache.close()
    (message,) = warnings_in(caplog)
    assert "attempt to write a readonly database" in message


def test_a_locked_file_delays_one_question_and_is_used_again_after_a_pause(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr(reply_cache, "_BUSY_TIMEOUT", 0.2)
    cache = cache_in(tmp_path)
    cache.put("key", REPLY, {})
    with database(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        start = time.monotonic()
        for number in range(20):
            cache.put(f"new {number}", REPLY, {})
        assert time.monotonic() - start < 2.0, "20 attempts would have taken 4 s"
        assert cache.get("key") == REPLY, "readers need no lock"
        other.execute("ROLLBACK")
    assert cache.get("new 0") is None
    monkeypatch.setattr(reply_cache.time, "monotonic", lambda now=time.monotonic: now() + 61)
    cache.put("new 0", REPLY, {})
    assert cache.get("new 0") == REPLY
    cache.close()
    (message,) = warnings_in(caplog)
    assert "database is locked" in message


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
    (message,) = warnings_in(caplog)
    assert message.startswith(f"the judge's cache {tmp_path / 'cache'} cannot be used: ")


def test_judging_continues_without_a_broken_database(chat: ChatServer, make_judge, tmp_path: Path, caplog) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).write_bytes(b"no database at all" * 1000)
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
