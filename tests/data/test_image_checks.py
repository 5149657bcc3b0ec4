"""Tests of the checks of all images: once each, in threads or processes, and remembered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.data import image_checks
from grit_lightning.data.checked_images import FILE, CheckedImages
from grit_lightning.data.image_checks import check_images, worker_pool
from grit_lightning.errors import ConfigError
from grit_lightning.types import ImageFile, Sample

SIZE = (40, 30)


def sample(line: int, *paths: Path, size: tuple[int, int] = SIZE) -> Sample:
    images = tuple(ImageFile(path, size) for path in paths)
    return Sample(f"f/{line}", "q", "a", images, (), "d", "train", f"f.jsonl:{line}")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{name}.jpg" for name in "abc"]
    for path in found:
        Image.effect_noise(SIZE, 99).convert("RGB").save(path)
    return found


def checked(samples: list[Sample], memory: CheckedImages, *, decode: bool, workers: int = 2) -> list[str]:
    return [str(one) for one in check_images(samples, decode=decode, workers=workers, memory=memory, quiet=True)]


@pytest.mark.parametrize("decode", [False, True])
def test_each_image_is_named_once_by_the_first_line_that_uses_it(paths, tmp_path, decode):
    gone = tmp_path / "gone.jpg"
    samples = [sample(1, paths[0]), sample(2, paths[1], gone), sample(3, gone), sample(4, paths[0], size=(30, 40))]
    assert checked(samples, CheckedImages(None), decode=decode) == [
        f"f.jsonl:2: image {gone} does not exist",
        f"f.jsonl:4: image {paths[0]} is 40 × 30 px, but fields 'width' and 'height' declare 30 × 40 px",
    ]


def test_bad_pixels_are_found_by_decoding_and_not_in_the_header(paths):
    paths[1].write_bytes(paths[1].read_bytes()[:-300])
    samples = [sample(line, path) for line, path in enumerate(paths, start=1)]
    assert checked(samples, CheckedImages(None), decode=False) == []
    (found,) = checked(samples, CheckedImages(None), decode=True)
    assert found.startswith(f"f.jsonl:2: image {paths[1]} cannot be decoded (")


def opened(monkeypatch) -> list[Path]:
    seen: list[Path] = []
    real = image_checks.check_header

    def spy(image, source):
        seen.append(image.path)
        return real(image, source)

    monkeypatch.setattr(image_checks, "check_header", spy)
    return seen


def test_what_passed_is_remembered_until_it_changes(paths, tmp_path, monkeypatch):
    memory = CheckedImages(tmp_path / "cache" / "deep")
    samples = [sample(line, path) for line, path in enumerate([*paths, tmp_path / "gone.jpg"], start=1)]
    assert len(checked(samples, memory, decode=True)) == 1
    seen = opened(monkeypatch)
    assert len(checked(samples, memory, decode=False)) == 1
    assert seen == [tmp_path / "gone.jpg"], "a decoded image has a good header"
    os.utime(paths[2], (5, 5))
    checked(samples, memory, decode=False)
    assert seen[1:] == [paths[2], tmp_path / "gone.jpg"]
    states = memory.unknown([ImageFile(paths[0], SIZE), ImageFile(paths[2], SIZE)], decoded=True)
    assert states == {ImageFile(paths[2], SIZE): (paths[2].stat().st_size, 5_000_000_000)}, "only its header is known"
    assert memory.unknown([ImageFile(paths[0], (30, 40))], decoded=False), "another declared size is another check"


def test_a_memory_that_cannot_be_used_is_none(paths, tmp_path):
    samples = [sample(1, paths[0])]
    (tmp_path / "in_the_way").write_text("")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / FILE).write_bytes(b"no database" * 100)
    for folder in (tmp_path / "in_the_way", broken, None):
        memory = CheckedImages(folder)
        assert checked(samples, memory, decode=False) == []
        assert list(memory.unknown([samples[0].images[0]], decoded=False)) == [samples[0].images[0]]
        assert checked(samples, memory, decode=True) == []


def test_an_image_that_changes_during_its_check_is_not_remembered(paths, tmp_path, monkeypatch):
    memory = CheckedImages(tmp_path / "cache")

    def replaced_meanwhile(image: ImageFile, source: str) -> None:
        image.path.write_bytes(b"torn")

    monkeypatch.setattr(image_checks, "check_header", replaced_meanwhile)
    assert checked([sample(1, paths[0])], memory, decode=False) == []
    assert list(memory.unknown([ImageFile(paths[0], SIZE)], decoded=False)) == [ImageFile(paths[0], SIZE)]


def test_checks_at_the_same_time_decode_each_image_once(paths, tmp_path, monkeypatch):
    decoded: list[Path] = []

    def slow(image: ImageFile, source: str) -> None:
        time.sleep(0.1)
        decoded.append(image.path)

    @contextmanager
    def threads(workers: int, *, processes: bool) -> Iterator[ThreadPoolExecutor]:
        assert processes
        with ThreadPoolExecutor(max(1, workers)) as pool:
            yield pool

    monkeypatch.setattr(image_checks, "load_image", slow)
    monkeypatch.setattr(image_checks, "worker_pool", threads)
    samples = [sample(line, path) for line, path in enumerate(paths, start=1)]
    with ThreadPoolExecutor(2) as runs:
        results = [runs.submit(checked, samples, CheckedImages(tmp_path / "cache"), decode=True) for _ in range(2)]
        assert [result.result() for result in results] == [[], []]
    assert sorted(decoded) == paths


def test_a_killed_worker_is_one_sentence():
    with (
        pytest.raises(ConfigError, match=r"^a process that decodes images was killed, .+data\.check=headers$"),
        worker_pool(1, processes=True) as pool,
    ):
        pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()


def test_workers_end_with_a_parent_that_is_killed():
    code = (
        "import os, time\n"
        "from grit_lightning.data.image_checks import worker_pool\n"
        "with worker_pool(1, processes=True) as pool:\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(worker)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_of_the_terminal_ends_the_check_without_a_traceback(how):
    code = (
        "import signal, sys, time\n"
        "from grit_lightning.data.image_checks import worker_pool\n"
        "signal.signal(int(sys.argv[1]), lambda *_: sys.exit(7))\n"
        "with worker_pool(2, processes=True) as pool:\n"
        "    pool.submit(int).result()\n"
        "    print(flush=True)\n"
        "    list(pool.map(time.sleep, [0.2] * 300))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(int(how))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as parent:  # fmt: skip
        parent.stdout.readline()
        time.sleep(0.5)
        os.killpg(parent.pid, how)
        assert (parent.wait(timeout=20), parent.stderr.read()) == (7, "")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_need_no_torch():
    code = "import sys, grit_lightning.data.image_checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
