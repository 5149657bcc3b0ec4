"""Tests of the download of one file from a server that fails, stalls, truncates, resets and redirects.

The file arrives complete or is refused with a reason.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path

import pytest

from grit_lightning.data.download_file import Downloader, Unavailable
from grit_lightning.errors import ConfigError, DataError
from support import hostile_server as hostile
from support.hostile_server import Forever, HostileServer, Mood, etag

BODY = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
PART = 100_000
OPTIONS = {"parallel": 4, "attempts": 3, "timeout": 20, "backoff": 0.01, "max_wait": 5}


def accept(path: Path) -> None:
    """Accept any content; each test compares the downloaded file itself."""


def only(body: bytes) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if path.read_bytes() != body:
            raise DataError("is not what was wanted", "cats.jsonl:3")

    return check


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "VG_100K" / "a.jpg"


@pytest.fixture
def get(server: HostileServer, target: Path) -> Callable[..., None]:
    """Return a function that downloads ``target`` from the given paths of the server, by default from ``/a``."""
    server.files["/a"] = BODY

    def run(*paths: str, check: Callable[[Path], None] = accept, **options: float) -> None:
        async def download() -> None:
            async with Downloader(**(OPTIONS | options)) as downloader:
                await downloader.get([server.url + path for path in paths or ("/a",)], target, check)

        asyncio.run(download())

    return run


def refusal(get: Callable[..., None], *paths: str, **options: object) -> str:
    with pytest.raises(Unavailable) as caught:
        get(*paths, **options)
    return str(caught.value)


def assert_came_alone(target: Path, body: bytes = BODY) -> None:
    assert target.read_bytes() == body
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("moods", [[500], [503, 502], [408], [425], [429, 500]])
def test_a_temporary_error_is_retried(server, get, target, moods):
    server.moods["/a"] = [hostile.status(code) for code in moods]
    get()
    assert server.paths() == ["/a"] * (len(moods) + 1)
    assert_came_alone(target)


def test_retries_end_after_the_configured_attempts(server, get, target):
    server.moods["/a"] = [Forever(hostile.status(503))]
    assert refusal(get) == f"{server.url}/a: HTTP 503 Service Unavailable (3 attempts)"
    assert server.paths() == ["/a"] * 3
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("code", [404, 403, 410, 401, 204, 304])
def test_a_permanent_error_is_not_retried_and_the_next_address_is_tried(server, get, target, code):
    server.moods["/x"] = [Forever(hostile.status(code))]
    get("/x", "/a")
    assert server.paths() == ["/x", "/a"]
    assert_came_alone(target)


def test_the_error_gives_the_reason_of_every_address(server, get, target):
    server.moods["/y"] = [Forever(hostile.status(500))]
    assert refusal(get, "/x", "/y") == (
        f"{server.url}/x: HTTP 404 Not Found; {server.url}/y: HTTP 500 Internal Server Error (3 attempts)"
    )
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(("mood", "timeout"), [(hostile.truncated, 20), (hostile.stalled, 2)])
def test_a_broken_download_continues_where_it_stopped(server, get, target, mood, timeout):
    server.moods["/a"] = [mood(PART)]
    get(timeout=timeout)
    first, second = server.requests
    assert (first.range, first.if_range) == (None, None)
    assert second.range == f"bytes={PART}-"
    assert second.if_range == etag(BODY)
    assert_came_alone(target)


def test_a_reset_connection_is_retried(server, get, target):
    server.moods["/a"] = [hostile.reset(PART)]
    get()
    assert server.paths() == ["/a", "/a"]  # from where, depends on what had been read by then
    assert_came_alone(target)


def test_a_later_process_continues_a_partial_download(server, get, target):
    server.moods["/a"] = [hostile.truncated(PART)]
    assert "attempts)" not in refusal(get, attempts=1)
    assert sorted(path.name for path in target.parent.iterdir()) == [".a.jpg.part", ".a.jpg.part.json"]
    get()
    assert [request.range for request in server.requests] == [None, f"bytes={PART}-"]
    assert_came_alone(target)


@pytest.mark.parametrize("second", [hostile.whole, hostile.another_range, hostile.status(416)])
def test_a_server_without_proper_ranges_sends_the_whole_file_again(server, get, target, second: Mood):
    server.moods["/a"] = [hostile.truncated(PART), second]
    get()
    assert server.requests[1].range == f"bytes={PART}-"
    assert all(request.range is None for request in server.requests[2:])
    assert_came_alone(target)


@pytest.mark.parametrize("second", [hostile.well, hostile.another_version])
def test_two_versions_of_a_file_are_never_joined(server, get, target, second: Mood):
    server.moods["/a"] = [hostile.truncated(PART)]
    refusal(get, attempts=1)
    server.files["/a"] = OTHER
    server.moods["/a"] = [second]
    get()
    assert server.requests[1].range == f"bytes={PART}-"
    assert_came_alone(target, OTHER)


def test_parts_of_two_addresses_are_never_joined(server, get, target):
    server.files["/b"] = OTHER
    server.moods["/a"] = [Forever(hostile.truncated(PART))]
    get("/a", "/b", attempts=1)
    assert [(request.path, request.range) for request in server.requests] == [("/a", None), ("/b", None)]
    assert_came_alone(target, OTHER)


def test_a_download_without_an_etag_is_not_continued(server, get, target):
    server.moods["/a"] = [hostile.without_etag(hostile.truncated(PART))]
    get()
    assert [request.range for request in server.requests] == [None, None]
    assert_came_alone(target)


def test_a_part_damaged_on_disk_is_discarded(server, get, target):
    server.moods["/a"] = [hostile.truncated(PART)]
    refusal(get, attempts=1)
    part = target.with_name(".a.jpg.part")
    part.write_bytes(bytes(PART))
    get(check=only(BODY))
    assert [request.range for request in server.requests] == [None, f"bytes={PART}-", None]
    assert_came_alone(target)


@pytest.mark.parametrize("suffix", ["part", "part.json"])
def test_a_pipe_in_place_of_a_part_is_named_and_not_opened(server, get, target, suffix):
    pipe = target.with_name(f".{target.name}.{suffix}")
    target.parent.mkdir()
    os.mkfifo(pipe)
    with pytest.raises(DataError, match=rf"/{re.escape(pipe.name)}: is not a regular file$"):
        get()


def test_torn_metadata_of_a_part_restarts_the_download(server, get, target):
    server.moods["/a"] = [hostile.truncated(PART)]
    refusal(get, attempts=1)
    note = target.with_name(".a.jpg.part.json")
    note.write_text(note.read_text()[:20])
    get()
    assert server.requests[1].range is None
    assert_came_alone(target)


def test_an_unannounced_end_is_retried(server, get, target):
    server.moods["/a"] = [hostile.unannounced(PART)]
    get(check=only(BODY))
    assert server.paths() == ["/a", "/a"]
    assert_came_alone(target)


def test_a_complete_but_wrong_file_is_not_retried(server, get, target):
    server.files["/b"] = OTHER
    get("/b", "/a", check=only(BODY))
    assert server.paths() == ["/b", "/a"]
    assert_came_alone(target)
    target.unlink()
    assert refusal(get, "/b", check=only(BODY)) == f"{server.url}/b: is not what was wanted"
    assert list(target.parent.iterdir()) == []


def test_an_old_file_is_kept_until_a_checked_one_replaces_it(server, get, target):
    target.parent.mkdir()
    target.write_bytes(b"old")
    for moods in ([hostile.instead(OTHER)], [hostile.truncated(PART)], [hostile.status(404)]):
        server.moods["/a"] = moods
        refusal(get, check=only(BODY), attempts=1)
        assert target.read_bytes() == b"old"
    get(check=only(BODY))
    assert_came_alone(target)


def test_a_web_page_in_place_of_the_file_is_refused(server, get, target):
    server.moods["/login"] = [Forever(hostile.web_page)]
    get("/login", "/a")
    assert server.paths() == ["/login", "/a"]
    assert_came_alone(target)
    target.unlink()
    assert refusal(get, "/login") == f"{server.url}/login: answers with a web page instead of the file"


def test_redirects_are_followed(server, get, target):
    server.moods["/moved"] = [hostile.redirect("/again")]
    server.moods["/again"] = [hostile.redirect(f"http://localhost:{server.port}/a")]
    get("/moved")
    assert server.paths() == ["/moved", "/again", "/a"]
    assert_came_alone(target)


def test_a_redirected_download_is_continued(server, get, target):
    server.moods["/moved"] = [Forever(hostile.redirect("/a"))]
    server.moods["/a"] = [hostile.truncated(PART)]
    get("/moved")
    assert [request.range for request in server.asked("/a")] == [None, f"bytes={PART}-"]
    assert_came_alone(target)


def test_a_redirect_loop_ends(server, get, target):
    server.moods["/loop"] = [Forever(hostile.redirect("/loop"))]
    get("/loop", "/a")
    assert 2 < len(server.asked("/loop")) < 30
    assert_came_alone(target)


def test_a_redirect_away_from_the_web_is_refused(server, get, target):
    server.moods["/moved"] = [Forever(hostile.redirect("ftp://127.0.0.1/a"))]
    get("/moved", "/a")
    assert server.paths() == ["/moved", "/a"]
    assert_came_alone(target)


def test_a_compressed_body_is_unpacked_and_never_continued(server, get, target):
    server.moods["/a"] = [hostile.cut(hostile.zipped, PART), hostile.zipped]
    get()
    assert [(request.range, request.accept_encoding) for request in server.requests] == [(None, "identity")] * 2
    assert_came_alone(target)


def test_retry_after_in_seconds_is_waited_for(server, get, target):
    server.moods["/a"] = [hostile.status(429, Retry_After=1)]
    get()
    first, second = server.requests
    assert second.time - first.time >= 1
    assert_came_alone(target)


def test_retry_after_as_a_date_is_waited_for(server, get, target):
    server.moods["/a"] = [hostile.status(503, Retry_After=formatdate(time.time() + 4, usegmt=True))]
    get()
    first, second = server.requests
    assert second.time - first.time >= 1  # a date has whole seconds, and some have passed since it was written
    assert_came_alone(target)


@pytest.mark.parametrize("value", ["soon", "-5", "", formatdate(0)])
def test_an_invalid_retry_after_means_no_wait(server, get, target, value):
    server.moods["/a"] = [hostile.status(429, Retry_After=value)]
    get()
    assert server.paths() == ["/a", "/a"]
    assert_came_alone(target)


def test_a_retry_after_above_max_wait_ends_the_download(server, get):
    server.moods["/a"] = [hostile.status(429, Retry_After=2)]
    assert refusal(get, max_wait=0.5) == (
        f"{server.url}/a: HTTP 429 Too Many Requests, retry allowed after 2 s, but task.max_wait is 0.5 s"
    )
    assert server.paths() == ["/a"]


def test_waits_are_drawn_from_a_window_that_doubles(server, get, monkeypatch):
    windows = []
    monkeypatch.setattr(random, "uniform", lambda low, high: windows.append((low, high)) or high)
    server.moods["/a"] = [hostile.status(500)] * 4
    get(attempts=5, backoff=0.1, max_wait=0.3)
    assert windows == [(0, 0.1), (0, 0.2), (0, 0.3), (0, 0.3)]
    times = [request.time for request in server.requests]
    gaps = [after - before for before, after in pairwise(times)]
    assert all(gap >= window[1] for gap, window in zip(gaps, windows, strict=True))


def test_an_endless_stall_times_out(server, get, target):
    server.moods["/a"] = [Forever(hostile.stalled(0))]
    assert refusal(get, attempts=2, timeout=0.5) == f"{server.url}/a: no data for 0.5 s (2 attempts)"


def test_a_refused_connection_is_a_reason(server, get, target):
    server.port = 9  # discard; nothing listens there
    assert refusal(get, attempts=2).startswith("http://127.0.0.1:9/a: cannot connect (")


def test_an_unwritable_target_is_a_reason(server, get, target):
    target.parent.write_text("in the way")
    assert "exists" in refusal(get)
    assert server.requests == []


def test_parallel_limits_the_requests_at_a_time(server, tmp_path):
    names = [f"/{index}" for index in range(12)]
    server.files.update({name: name.encode() for name in names})
    server.delay = 0.3

    async def run() -> None:
        async with Downloader(**(OPTIONS | {"parallel": 3})) as downloader:
            await asyncio.gather(*(downloader.get([server.url + name], tmp_path / name[1:], accept) for name in names))

    asyncio.run(run())
    assert server.most_busy == 3
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {n[1:]: n.encode() for n in names}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("parallel", 0, "task.parallel is 0, expected at least 1"),
        ("attempts", 0, "task.attempts is 0, expected at least 1"),
        ("timeout", 0, "task.timeout is 0, expected a number of seconds above 0"),
        ("backoff", -1, "task.backoff is -1, expected a number of seconds above 0"),
        ("max_wait", float("inf"), "task.max_wait is inf, expected a number of seconds above 0"),
        ("timeout", float("nan"), "task.timeout is nan, expected a number of seconds above 0"),
    ],
)
def test_an_option_out_of_range_is_refused(option, value, message):
    with pytest.raises(ConfigError) as caught:
        Downloader(**(OPTIONS | {option: value}))
    assert str(caught.value) == message


def test_a_token_is_sent_to_the_addresses_under_its_base_only(server, target) -> None:
    server.files |= dict.fromkeys(("/hub/a", "/hubs/a", "/else/a", "/moved", "/far"), BODY)
    server.moods["/hub/near"] = [hostile.redirect("/moved")]
    server.moods["/hub/far"] = [hostile.redirect(f"http://localhost:{server.port}/far")]
    server.moods["/hub/again"] = [hostile.status(503), hostile.redirect("/moved")]

    async def download() -> None:
        async with Downloader(**OPTIONS, tokens={f"{server.url}/hub": "secret"}) as downloader:
            for path in ("/hub/a", "/hub/near", "/hub/far", "/hub/again", "/hubs/a", "/else/a"):
                await downloader.get([server.url + path], target, accept)

    asyncio.run(download())
    assert [(request.path, request.authorization) for request in server.requests] == [
        ("/hub/a", "Bearer secret"),
        ("/hub/near", "Bearer secret"),
        ("/moved", "Bearer secret"),  # on the same host
        ("/hub/far", "Bearer secret"),
        ("/far", None),
        ("/hub/again", "Bearer secret"),
        ("/hub/again", "Bearer secret"),
        ("/moved", "Bearer secret"),
        ("/hubs/a", None),
        ("/else/a", None),
    ]
