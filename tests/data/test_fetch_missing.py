"""Tests of fetching a data set from a local server: requests sent, files kept, and problems reported."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grit_lightning.data.checks import DataFile
from grit_lightning.data.download_file import Downloader
from grit_lightning.data.fetch_missing import Addresses, Report, fetch_lock, fetch_missing
from grit_lightning.data.file_datamodule import GroundedQADataModule
from grit_lightning.errors import ConfigError
from support import hostile_server as hostile
from support.hostile_server import Forever, HostileServer

ORIENTATION = 0x0112  # EXIF tag
FILES = "{hub}/{name}"
IMAGES = {
    "vsr": ["{coco}/train2017/{name}", "{coco}/val2017/{name}"],
    "tallyqa": ["{vg}/{image}", "{vg}/VG_100K/{name}", "{vg}/VG_100K_2/{name}"],
    "mme": [],
}

Fetch = Callable[..., list[Report]]


def jpeg(seed: int, size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Return a JPEG file of random pixels, different for each seed; a truncated one cannot be decoded."""
    pixels = random.Random(seed).randbytes(size[0] * size[1] * 3)
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jsonl(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.fixture
def vsr(record: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    return lambda image, **changes: record(**({"image": image, "dataset": "vsr"} | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "GRIT_data"


@pytest.fixture
def fetch(server: HostileServer, root: Path) -> Fetch:
    def run(*names: str, images: str = "images") -> list[Report]:
        bases = {"hub": f"{server.url}/hub", "coco": f"{server.url}/coco/", "vg": f"{server.url}/vg"}
        entries = [DataFile(root / name, root / images) for name in names or ("vsr.jsonl",)]
        downloader = Downloader(parallel=4, attempts=2, timeout=2, backoff=0.01, max_wait=1)
        root.mkdir(exist_ok=True)
        return asyncio.run(fetch_missing(entries, Addresses(bases, FILES, IMAGES), downloader, quiet=True))

    return run


def states(report: Report) -> dict[str, str]:
    return {path.name: outcome.name for path, outcome in report.images.items()}


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_the_named_images_are_requested_and_only_once(server, fetch, vsr, root):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"), vsr("b.jpg"), vsr("a.jpg", question="Why?"))
    server.files |= {f"/coco/train2017/{name}.jpg": jpeg(ord(name)) for name in "abc"}
    (report,) = fetch()
    assert sorted(server.paths()) == ["/coco/train2017/a.jpg", "/coco/train2017/b.jpg", "/hub/vsr.jsonl"]
    assert (report.state.name, len(report.samples), report.problems) == ("FETCHED", 3, [])
    assert states(report) == {"a.jpg": "FETCHED", "b.jpg": "FETCHED"}
    assert files_in(root) == {"vsr.jsonl", "images/a.jpg", "images/b.jpg"}
    assert (root / "vsr.jsonl").read_bytes() == server.files["/hub/vsr.jsonl"]
    assert (root / "images/b.jpg").read_bytes() == jpeg(ord("b"))

    server.requests.clear()
    (report,) = fetch()
    assert server.requests == []
    assert report.row() == {
        "file": "vsr.jsonl",
        "state": "already there",
        "samples": "3",
        "images": "2",
        "already there": "2",
        "fetched": "0",
        "missing": "0",
    }


def test_the_data_module_reads_the_fetched_files(server, fetch, vsr, root, encoder):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"))
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    fetch()
    data = GroundedQADataModule(
        root=str(root),
        train=[{"file": "vsr.jsonl", "images": "images"}],
        val=None,
        prompts_per_step=1,
        max_prompt_tokens=750,
        cached_samples=0,
        seed=0,
    )
    data.attach(encoder)
    assert [sample.image for sample in data.train_samples()] == [root / "images" / "a.jpg"]


@pytest.mark.parametrize(
    ("dataset", "image", "lies_at", "asked"),
    [
        ("vsr", "1.jpg", "/coco/val2017/1.jpg", ["/coco/train2017/1.jpg", "/coco/val2017/1.jpg"]),
        ("tallyqa", "VG_100K/1.jpg", "/vg/VG_100K/1.jpg", ["/vg/VG_100K/1.jpg"]),
        ("tallyqa", "VG_100K_2/1.jpg", "/vg/VG_100K_2/1.jpg", ["/vg/VG_100K_2/1.jpg"]),
        ("tallyqa", "VG_100K/1.jpg", "/vg/VG_100K_2/1.jpg", ["/vg/VG_100K/1.jpg", "/vg/VG_100K_2/1.jpg"]),
        ("tallyqa", "1.jpg", "/vg/VG_100K/1.jpg", ["/vg/1.jpg", "/vg/VG_100K/1.jpg"]),
        ("vsr", "a b#c?d%20.jpg", "/coco/train2017/a%20b%23c%3Fd%2520.jpg", ["/coco/train2017/a%20b%23c%3Fd%2520.jpg"]),
    ],
)
def test_the_addresses_of_an_image_are_tried_in_order(server, fetch, vsr, root, dataset, image, lies_at, asked):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr(image, dataset=dataset))
    server.files[lies_at] = jpeg(0)
    (report,) = fetch()
    assert report.problems == []
    assert server.paths()[1:] == asked
    assert (root / "images" / image).read_bytes() == jpeg(0)


def test_failures_of_every_kind_do_not_stop_the_other_downloads(server, fetch, vsr, root):
    names = ["good", "gone", "small", "page", "half", "down", "slow"]
    server.files["/hub/vsr.jsonl"] = jsonl(*(vsr(f"{name}.jpg") for name in names))
    server.files |= {f"/coco/train2017/{name}.jpg": jpeg(0) for name in names if name != "gone"}
    server.files["/coco/train2017/small.jpg"] = jpeg(0, (20, 15))
    server.files["/coco/train2017/half.jpg"] = jpeg(0)[: len(jpeg(0)) // 2]  # whole as far as the server knows
    moods = {"page": hostile.web_page, "down": hostile.status(500), "slow": hostile.stalled(100)}
    server.moods = {f"/coco/train2017/{name}.jpg": [Forever(mood)] for name, mood in moods.items()}
    (report,) = fetch()
    assert states(report) == {f"{name}.jpg": "FETCHED" if name == "good" else "MISSING" for name in names}
    assert files_in(root) == {
        "vsr.jsonl",
        "images/good.jpg",
        "images/.slow.jpg.part",  # goes on from here the next time
        "images/.slow.jpg.part.json",
    }
    train = f"{server.url}/coco/train2017"
    problems = dict(zip(names[1:], report.problems, strict=True))
    for line, (name, problem) in enumerate(problems.items(), start=2):
        begin, end = f"{root}/vsr.jsonl:{line}: {root}/images/{name}.jpg: {train}/{name}.jpg: ", "404 Not Found"
        assert problem.startswith(begin)
        assert problem.endswith(f"; {server.url}/coco/val2017/{name}.jpg: HTTP {end}")
        assert "\n" not in problem
        problems[name] = problem.removeprefix(begin).partition(f"; {server.url}")[0]
    assert problems["gone"] == "HTTP 404 Not Found"
    assert problems["small"] == (
        f"image {root}/images/small.jpg is 20 × 15 px, but fields 'width' and 'height' declare 40 × 30 px"
    )
    assert problems["page"] == "answers with a web page instead of the file"
    assert problems["half"].startswith(f"image {root}/images/half.jpg cannot be decoded (image file is truncated")
    assert problems["down"] == "HTTP 500 Internal Server Error (2 attempts)"
    assert problems["slow"] == "no data for 2 s (2 attempts)"

    server.moods, server.requests = {}, []
    (report,) = fetch()
    asked = {"gone": 2, "small": 2, "page": 1, "half": 2, "down": 1, "slow": 1}  # of both addresses, or of the first
    assert {name: sum(f"/{name}.jpg" in path for path in server.paths()) for name in asked} == asked
    assert len(server.requests) == sum(asked.values())
    assert server.asked("/coco/train2017/slow.jpg")[0].range == "bytes=100-"
    assert [name for name, state in states(report).items() if state == "MISSING"] == [
        "gone.jpg",
        "small.jpg",
        "half.jpg",
    ]


def test_a_rotated_photograph_is_accepted_as_in_training(server, fetch, vsr, root):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("turned.jpg"), vsr("stored.jpg"))
    server.files["/coco/train2017/turned.jpg"] = jpeg(0, (30, 40), exif=exif)
    server.files["/coco/train2017/stored.jpg"] = jpeg(0, (40, 30), exif=exif)
    (report,) = fetch()
    assert states(report) == {"turned.jpg": "FETCHED", "stored.jpg": "FETCHED"}


def test_a_damaged_image_is_replaced_and_a_good_one_kept(server, fetch, vsr, root):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("spoilt.jpg"), vsr("good.jpg"), vsr("lost.jpg"))
    server.files["/coco/train2017/spoilt.jpg"] = jpeg(0)
    (root / "images").mkdir(parents=True)
    (root / "images/spoilt.jpg").write_bytes(jpeg(0)[:300])
    (root / "images/lost.jpg").write_bytes(jpeg(2)[:300])
    (root / "images/good.jpg").write_bytes(jpeg(1))
    (report,) = fetch()
    assert states(report) == {"spoilt.jpg": "FETCHED", "good.jpg": "THERE", "lost.jpg": "MISSING"}
    assert not any("good.jpg" in path for path in server.paths())
    assert (root / "images/spoilt.jpg").read_bytes() == jpeg(0)
    assert (root / "images/good.jpg").read_bytes() == jpeg(1)
    assert (root / "images/lost.jpg").read_bytes() == jpeg(2)[:300]


def test_samples_that_disagree_about_an_image_are_a_problem(server, fetch, vsr, root):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"), vsr("a.jpg", width=41))
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    (report,) = fetch()
    assert states(report) == {"a.jpg": "MISSING"}
    assert "is 40 × 30 px, but fields 'width' and 'height' declare 41 × 30 px" in report.problems[0]


def test_an_image_of_two_files_is_requested_once(server, fetch, vsr, root):
    for name in ("vsr", "val"):
        server.files[f"/hub/{name}.jsonl"] = jsonl(vsr("a.jpg"))
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    reports = fetch("vsr.jsonl", "val.jsonl")
    assert [states(report) for report in reports] == [{"a.jpg": "FETCHED"}] * 2
    assert len(server.asked("/coco/train2017/a.jpg")) == 1


def test_an_unavailable_data_file_does_not_stop_the_others(server, fetch, vsr, root):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"))
    server.files["/hub/b.jsonl"] = b'{"error": "Entry not found"}\n'
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    server.moods["/hub/c.jsonl"] = [Forever(hostile.web_page)]
    reports = fetch("gone.jsonl", "vsr.jsonl", "b.jsonl", "c.jsonl")
    assert [report.state.name for report in reports] == ["MISSING", "FETCHED", "MISSING", "MISSING"]
    assert reports[0].problems == [f"{root}/gone.jsonl: {server.url}/hub/gone.jsonl: HTTP 404 Not Found"]
    assert "field 'width' is missing" in reports[2].problems[0]
    assert reports[3].problems[0].endswith("answers with a web page instead of the file")
    assert files_in(root) == {"vsr.jsonl", "images/a.jpg"}


def test_a_truncated_data_file_is_requested_again(server, fetch, vsr, root):
    whole = jsonl(*(vsr("a.jpg", question=f"What is {number}?") for number in range(5)))
    server.files |= {"/hub/vsr.jsonl": whole, "/coco/train2017/a.jpg": jpeg(0)}
    server.moods["/hub/vsr.jsonl"] = [hostile.unannounced(len(whole) - 30)]
    (report,) = fetch()
    assert len(server.asked("/hub/vsr.jsonl")) == 2
    assert (len(report.samples), report.problems) == (5, [])
    assert (root / "vsr.jsonl").read_bytes() == whole


def test_a_data_file_that_is_torn_on_the_server_is_refused(server, fetch, vsr, root):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"), vsr("b.jpg"))[:-30]
    (report,) = fetch()
    assert report.problems == [
        f"{root}/vsr.jsonl: {server.url}/hub/vsr.jsonl: ends in the middle of a line",
    ]
    assert files_in(root) == set()


def test_bad_lines_are_named_and_the_images_of_good_ones_fetched(server, fetch, vsr, root):
    bad = vsr("c.jpg", bboxs=[[9, 9, 1, 1]])
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"), bad, vsr("../../b.jpg"), vsr("/etc/c.jpg"))
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    (report,) = fetch()
    assert states(report) == {"a.jpg": "FETCHED"}
    assert server.paths() == ["/hub/vsr.jsonl", "/coco/train2017/a.jpg"]
    (problem,) = report.problems
    assert problem.startswith(f"{root}/vsr.jsonl:2: field 'bboxs[0]' is ")
    assert problem.endswith(" (and 2 more: task=validate lists them all)")


def test_an_existing_data_file_is_kept(server, fetch, vsr, root):
    root.mkdir()
    own = jsonl(vsr("a.jpg")) + b"{half a li"
    (root / "vsr.jsonl").write_bytes(own)
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("b.jpg"))
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    (report,) = fetch()
    assert report.state.name == "THERE"
    assert (root / "vsr.jsonl").read_bytes() == own
    assert server.paths() == ["/coco/train2017/a.jpg"]
    assert ":2: not valid JSON" in report.problems[0]


@pytest.mark.parametrize("dataset", ["mme", "cats"])
def test_images_without_an_address_must_be_placed_by_hand(server, fetch, vsr, root, dataset):
    records = [vsr(f"{name}.jpg", dataset=dataset) for name in "abc"]
    server.files["/hub/vsr.jsonl"] = jsonl(*records)
    (report,) = fetch(images="mine")
    assert report.problems == [
        f"3 images of {dataset}: no download address is known; place them in {root}/mine or give their address as "
        f"'++task.images.{dataset}=[\"http://…/{{name}}\"]'"
    ]
    assert server.paths() == ["/hub/vsr.jsonl"]

    (root / "mine").mkdir()
    for name in "ab":
        (root / "mine" / f"{name}.jpg").write_bytes(jpeg(0))
    (root / "mine" / "c.jpg").write_bytes(jpeg(0, (9, 9)))
    (report,) = fetch(images="mine")
    assert states(report) == {"a.jpg": "THERE", "b.jpg": "THERE", "c.jpg": "MISSING"}
    assert report.problems == [
        f"{root}/vsr.jsonl:3: image {root}/mine/c.jpg is 9 × 9 px, but fields 'width' and 'height' declare 40 × 30 px"
    ]


def test_progress_is_shown_unless_quiet(server, fetch, vsr, root, capsys):
    server.files["/hub/vsr.jsonl"] = jsonl(vsr("a.jpg"))
    server.files["/coco/train2017/a.jpg"] = jpeg(0)
    fetch()
    assert capsys.readouterr().err == ""
    addresses = Addresses({"hub": server.url}, FILES, {})
    downloader = Downloader(parallel=1, attempts=1, timeout=1, backoff=1, max_wait=1)
    asyncio.run(fetch_missing([DataFile(root / "vsr.jsonl", root / "images")], addresses, downloader, quiet=False))
    assert "fetching images: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("bases", "files", "images", "message"),
    [
        ({}, "{hub}/{name}", {}, "task.files is '{hub}/{name}', expected an address with no placeholder except {name}"),
        (
            {},
            "http://hub/{name",
            {},
            "task.files is 'http://hub/{name', expected an address with no placeholder except {name}",
        ),
        (
            {},
            "http://hub/{image}",
            {},
            "task.files is 'http://hub/{image}', expected an address with no placeholder except {name}",
        ),
        (
            {"hub": "hub.org"},
            "{hub}/{name}",
            {},
            "task.files is '{hub}/{name}', which gives hub.org/n; expected an http:// or https:// address",
        ),
        (
            {"hub": "file:///tmp"},
            "http://hub/{name}",
            {"vsr": ["http://coco/{name}", "{hub}/{image}"]},
            "task.images.vsr[1] is '{hub}/{image}', which gives file:///tmp/i; expected an http:// or https:// address",
        ),
    ],
)
def test_an_invalid_address_template_is_refused(bases, files, images, message):
    with pytest.raises(ConfigError) as caught:
        Addresses(bases, files, images)
    assert str(caught.value) == message


def test_a_second_fetch_into_the_same_folder_is_refused(tmp_path):
    with fetch_lock(tmp_path):
        with pytest.raises(
            ConfigError, match=rf"^{tmp_path}: another task=fetch is running in this folder \(process \d+ on "
        ):
            fetch_lock(tmp_path).__enter__()
        (tmp_path / "other").mkdir()
        with fetch_lock(tmp_path / "other"):
            pass
    with fetch_lock(tmp_path):
        pass
