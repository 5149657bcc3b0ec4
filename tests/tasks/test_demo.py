"""Tests of task=demo as it is served: through its programming interface, and in the system's Chromium."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grit_lightning.system.paths import asset
from support.browser import CHROMIUM

pytest.importorskip("gradio", reason="the extra demo is not installed")

PICTURE = asset("shapes20/images/tallyqa_train_0_1.png")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of the demo of the bundled model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "grit_lightning", "task=demo", f"task.port={port}", "threads=1"]
    environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "uploads")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        for _ in range(600):
            text = (folder / "log").read_text()
            if "open http" in text or process.poll() is not None:
                break
            time.sleep(0.2)
        assert f"open http://127.0.0.1:{port}/" in text, text
        yield f"http://127.0.0.1:{port}/"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        assert "Traceback" not in (folder / "log").read_text()
    finally:
        process.kill()


def ask(client: Any, image: Path | None, question: str = "How many triangles are there?", reference: str = "") -> str:
    from gradio_client import handle_file

    given = None if image is None else handle_file(str(image))
    return client.predict(given, question, "grounded_prefilled", "greedy", reference, api_name="/ask")


@pytest.fixture
def client(served: str) -> Any:
    from gradio_client import Client

    return Client(served, verbose=False)


@pytest.mark.filterwarnings("default")
def test_an_answer_has_its_image_boxes_and_rewards(client: Any) -> None:
    html = ask(client, PICTURE, reference="3")
    assert html.count('<rect class="written') == html.count("<mark") > 0
    assert "data:image/jpeg;base64," in html
    assert re.search(r"answer_match <b>[01]</b>", html)


@pytest.mark.filterwarnings("default")
def test_bad_input_gets_a_sentence(client: Any, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    said = {
        "text": ask(client, tmp_path / "text.png"),
        "huge": ask(client, tmp_path / "huge.png"),
        "none": ask(client, None),
        "empty": ask(client, PICTURE, ""),
    }
    assert said == {
        "text": '<p class="demo-problem">text.png is not an image that can be read</p>',
        "huge": '<p class="demo-problem">huge.png is 10000 × 10000 px, expected at most 89 million pixels</p>',
        "none": '<p class="demo-problem">choose an image first</p>',
        "empty": '<p class="demo-problem">ask a question about the image</p>',
    }


@pytest.mark.filterwarnings("default")
def test_two_people_ask_at_once(served: str) -> None:
    from gradio_client import Client

    def one(number: int) -> str:
        client = Client(served, verbose=False)
        return ask(client, PICTURE, ("How many triangles are there?", "Is there a square?")[number])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, (0, 1))
    assert first == one(0)
    assert second == one(1)
    assert first != second


@pytest.mark.filterwarnings("default")
def test_a_file_that_is_too_large_is_refused(client: Any, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(os.urandom(21_000_000))
    with pytest.raises(Exception, match=r"413|exceed"):
        ask(client, tmp_path / "large.png")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_it_works_in_a_browser_without_a_network(served: str, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    (tmp_path / "<img src=x onerror=alert(1)>.png").write_text("no image")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        outside, complaints = [], []
        page.on("request", lambda one: outside.append(one.url) if not one.url.startswith((served, "data:")) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.goto(served)
        page.set_input_files("input[type=file]", PICTURE)
        page.locator("img[src*='tallyqa_train_0_1']").first.wait_for()
        page.fill("#question textarea", "How many triangles are there? <script>alert(1)</script> ${alert(2)} {{7*7}}")
        page.click("#ask")
        words = page.locator("#answer mark").first
        words.wait_for(timeout=60_000)
        page.get_by_text(re.compile("ended by (stop|eos|length)")).wait_for()
        page.wait_for_timeout(1000)  # until the whole answer is there
        words.hover()
        assert "lit" in page.locator("#answer rect.written").first.get_attribute("class")
        page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
        page.set_input_files("input[type=file]", tmp_path / "<img src=x onerror=alert(1)>.png")
        page.wait_for_timeout(1000)
        page.click("#ask")
        problem = page.locator("#answer .demo-problem")
        problem.wait_for(timeout=30_000)
        assert "is not an image that can be read" in problem.text_content()
        assert page.locator("#answer img").count() == 0
        browser.close()
    assert complaints == []
    assert [url for url in outside if not url.startswith("blob:")] == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.max_upload_mb=0"], "task.max_upload_mb is 0, expected a number above 0"),
        (["run=nowhere"], "nowhere"),
        (["model=pretrained", "model.checkpoint=nowhere/at_all"], "nowhere/at_all"),
    ],
)
def test_what_cannot_be_shown_is_one_line(cli: Any, tmp_path: Path, overrides: list[str], message: str) -> None:
    done = cli("task=demo", *overrides, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_named(cli: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("task=demo", f"task.port={port}", cwd=tmp_path)
    assert done.returncode == 1
    assert f"task.port is {port}, which cannot be used" in done.stderr
