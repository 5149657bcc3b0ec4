"""Tests that drive pages in the system's Chromium, opened from the disk without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grit_lightning.report.run_page import run_page
from grit_lightning.report.sweep_page import sweep_page
from grit_lightning.runs.results import write_results
from support.browser import CHROMIUM
from support.pages import NASTY, completion, run_with

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a page from a file; at the end it has asked for nothing else and has no error in its console."""
    complaints: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_page(html: str, *, width: int = 1400) -> Any:
        (tmp_path / "page.html").write_text(html, encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, offline=True))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url.partition(",")[0]))
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith("data:image/")} == {(tmp_path / "page.html").as_uri()}


def run(tmp_path: Path) -> str:
    Image.new("RGB", (60, 50), "green").save(tmp_path / "a.png")
    text = '<think> {"bbox_2d": [1, 2, 30, 40], "label": "cat"} </think> <answer> 1 </answer>'
    image = str(tmp_path / "a.png")
    first = [completion(text, index, image=image) for index in (0, 1)]
    wrong = {"answer_match": 0.0}
    other = [completion(text, index, image=image, slot=1, sample_id="mine/2", rewards=wrong) for index in (0, 1)]
    return run_page(run_with(tmp_path, {1: first, 2: first + other}), resamples=10)


def test_a_box_lights_up_with_its_words_by_pointer_and_by_keyboard(opened: Any, tmp_path: Path) -> None:
    page = opened(run(tmp_path))
    shown = page.locator("#rollouts details[open] .completion").first
    words, box = shown.locator("mark"), shown.locator("rect.written")
    assert "lit" not in box.get_attribute("class")
    words.hover()
    assert "lit" in box.get_attribute("class")
    page.locator("h1").hover()
    assert "lit" not in box.get_attribute("class")
    box.hover()
    assert "lit" in words.get_attribute("class")
    page.locator("h1").hover()
    words.focus()
    assert "lit" in box.get_attribute("class")


def test_rollouts_are_filtered_and_ordered(opened: Any, tmp_path: Path) -> None:
    page = opened(run(tmp_path))
    form = page.locator("#rollouts form")
    count, visible = form.locator("output"), page.locator("#rollouts .completion:visible")
    assert (count.text_content(), visible.count()) == ("6 completions", 4)
    form.locator("[name=right]").select_option("no")
    assert (count.text_content(), visible.count()) == ("2 completions", 2)
    form.locator("[name=right]").select_option("")
    form.locator("[name=sample]").select_option("mine/1")
    assert (count.text_content(), visible.count()) == ("4 completions", 4), "its steps are opened"
    form.locator("[name=reward]").fill("0.5")
    assert count.text_content() == "2 completions"
    form.locator("[name=reward]").fill("")
    form.locator("[name=order]").select_option("advantage")
    values = [float(one.get_attribute("data-advantage")) for one in visible.all()]
    assert values == [0.5, -0.5, 0.5, -0.5]


def test_curves_tell_their_values(opened: Any, tmp_path: Path) -> None:
    page = opened(run(tmp_path))
    figure = page.locator("figure").first
    usual = figure.locator(".note").text_content()
    place = figure.locator("svg").bounding_box()
    page.mouse.move(place["x"] + 5, place["y"] + 40)
    assert figure.locator(".note").text_content() == "step 1: 0.5"
    page.mouse.move(place["x"] + place["width"] - 5, place["y"] + 40)
    assert figure.locator(".note").text_content() == "step 2: 0.5"
    page.locator("h1").hover()
    assert figure.locator(".note").text_content() == usual


def test_jobs_are_sorted_by_a_click_with_empty_cells_last(opened: Any, tmp_path: Path) -> None:
    jobs = [(run_with(tmp_path / name, {1: [completion("x")]}), name) for name in ("a", "b", "c")]
    for (job, _), accuracy in zip(jobs, (0.9, 0.11), strict=False):
        write_results(job, 1, {"heldout/accuracy": accuracy})
    page = opened(sweep_page(tmp_path, jobs, []))
    button = page.get_by_role("button", name="heldout/accuracy")
    order = lambda: [cell.text_content() for cell in page.locator("tbody tr td:nth-child(2)").all()]  # noqa: E731
    button.click()
    assert order() == ["b", "a", "c"]
    button.press("Enter")
    assert order() == ["a", "b", "c"]


@pytest.mark.parametrize("width", [1400, 400])
def test_the_page_fits_its_width_and_works_without_script(
    browser: Any, opened: Any, tmp_path: Path, width: int
) -> None:
    html = run(tmp_path)
    page = opened(html, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    still = browser.new_page(java_script_enabled=False)
    still.set_content(html)
    assert still.locator("#rollouts details[open] .completion:visible").count() == 4
    still.locator("#rollouts summary").first.click()
    assert still.locator("#rollouts .completion:visible").count() == 6
    still.close()


def test_texts_of_strangers_do_nothing(opened: Any, tmp_path: Path) -> None:
    nasty = " ".join(NASTY) + "<img src=x onerror=alert(2)><svg onload=alert(3)>" + "x" * 100_000
    names = {"question": nasty, "answer": nasty, "sample_id": nasty, "dataset": nasty}
    page = opened(run_page(run_with(tmp_path, {1: [completion(nasty, rewards={nasty: 1.0}, **names)]}), resamples=10))
    assert "<script>alert(1)</script>" in page.locator("#rollouts .text").text_content()
    assert page.locator("#rollouts img, #rollouts script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 1400
