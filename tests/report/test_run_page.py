"""Tests of the page about a run and about predictions: what it shows, and that no text of a stranger can act on it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grit_lightning.report import run_page as pages
from grit_lightning.report.run_page import predictions_page, run_page
from grit_lightning.runs.run_folder import RunFolder

NASTY = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</textarea></style></svg>", "{{ 7 * 7 }}",
    "\x1b[2J\u202e", "' onmouseover='alert(1)",
)  # fmt: skip


class Tags(HTMLParser):
    """Collects the tags of a page, its attributes and its visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def completion(text: str, index: int = 0, **changes: Any) -> dict[str, Any]:
    box = {"label": "cat", "form": "json", "image": 1, "model": [1, 2, 30, 40], "pixels": [1, 2, 30, 40], "valid": True}
    return {
        "step": 1, "slot": 0, "sample_id": "mine/1", "dataset": "tallyqa", "split": "train", "source": "mine.jsonl:1",
        "question": "How many cats?", "answer": "1", "image": "gone.png", "image_size": [60, 50], "more_images": [],
        "reference_boxes": [[0, 0, 20, 20]], "completion_index": index, "text": text, "finish": "stop",
        "num_tokens": 7, "token_ids": [1], "parsed_answer": "1", "boxes": [box], "rewards": {"answer_match": 1.0},
        "reward": 1.0 - index, "reward_errors": {}, "advantage": 0.5 - index, **changes,
    }  # fmt: skip


def run_with(tmp_path: Path, steps: dict[int, list[dict[str, Any]]]) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.rollouts.mkdir(parents=True)
    manifest = {"overrides": ["seed=1"], "started": "2026-01-01", "packages": {"torch": "2.13"}}
    run.manifest_file.write_text(json.dumps(manifest))
    for step, records in steps.items():
        (run.rollouts / f"step_{step:06d}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return run


def test_a_run_is_shown_with_its_command_curves_boxes_and_scores(tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), "green").save(tmp_path / "a.png")
    text = '<think> {"bbox_2d": [1, 2, 30, 40], "label": "cat"} </think> <answer> 1 </answer>'
    records = [completion(text, index, image=str(tmp_path / "a.png")) for index in (0, 1)]
    page = run_page(run_with(tmp_path, {1: records, 2: records}), resamples=10)
    tags = parsed(page)
    shown = " ".join(" ".join(tags.text).split())
    assert "python -m grit_lightning seed=1" in shown
    assert "2 of 2 steps, each with all of its completions" in shown
    assert "reward/total/mean" in shown
    assert sum(tag == "symbol" for tag, _ in tags.tags) == 1, "the image is embedded once"
    assert sum(tag == "use" for tag, _ in tags.tags) == 4, "and used by each completion"
    written = [attrs for tag, attrs in tags.tags if tag == "rect" and "written" in (attrs.get("class") or "")]
    assert [tuple(written[0][name] for name in ("x", "y", "width", "height"))] == [("1.0", "2.0", "29.0", "38.0")]
    assert sum(tag == "mark" and attrs.get("data-box") == "0" for tag, attrs in tags.tags) == 4
    articles = [attrs for tag, attrs in tags.tags if tag == "article"]
    assert [(one["data-reward"], one["data-right"]) for one in articles[:2]] == [("1.0", "yes"), ("0.0", "yes")]


def test_nothing_is_loaded_from_outside_and_only_the_own_script_may_run(tmp_path: Path) -> None:
    tags = parsed(run_page(run_with(tmp_path, {1: [completion("x")]}), resamples=10))
    assert [attrs for tag, attrs in tags.tags if tag in ("link", "iframe", "img", "object", "base")] == []
    assert not [attrs for _, attrs in tags.tags for name in attrs if name in ("src", "onload", "onclick", "style")]
    hrefs = {str(attrs["href"]) for _, attrs in tags.tags if "href" in attrs}
    assert all(one.startswith(("#", "data:image/jpeg;base64,")) for one in hrefs)
    (policy,) = [attrs["content"] for tag, attrs in tags.tags if tag == "meta" and "http-equiv" in attrs]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[\w+/=]+'", policy or ""
    )


@pytest.mark.parametrize("nasty", NASTY)
def test_texts_of_strangers_are_inert(tmp_path: Path, nasty: str) -> None:
    plain = parsed(run_page(run_with(tmp_path / "plain", {1: [completion("x")]}), resamples=10))
    box = {"label": nasty, "form": "json", "image": 1, "model": [1, 2, 3, 4], "pixels": [1, 2, 3, 4], "valid": False}
    names = {"question": nasty, "answer": nasty, "sample_id": nasty, "dataset": nasty, "image": nasty.replace("/", "")}
    record = completion(nasty, parsed_answer=nasty, boxes=[box], rewards={nasty: 1.0}, **names)
    page = run_page(run_with(tmp_path / "nasty", {1: [record]}), resamples=10)
    tags = parsed(page)
    assert [tag for tag, _ in tags.tags] == [tag for tag, _ in plain.tags]
    assert {name for _, attrs in tags.tags for name in attrs} == {name for _, attrs in plain.tags for name in attrs}
    assert "\x1b" not in page
    assert "\u202e" not in page
    if nasty.isprintable():
        assert nasty in "".join(tags.text)


def test_of_a_long_run_evenly_spaced_steps_are_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_COMPLETIONS", 6)
    run = run_with(tmp_path, {step: [completion("x", index) for index in (0, 1)] for step in range(1, 10)})
    page = " ".join("".join(parsed(run_page(run, resamples=10)).text).split())
    assert "3 of 9 steps, each with all of its completions, evenly spaced" in page
    assert [int(one) for one in re.findall(r"step (\d+) \d+ prompts", page)] == [1, 5, 9]


def test_long_texts_and_many_images_are_limited_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        Image.new("RGB", (60, 50), "green").save(tmp_path / f"{name}.png")
    monkeypatch.setattr(pages, "IMAGE_BYTES", 10)
    records = [completion("y" * 100_000, index, slot=index, image=str(tmp_path / f"{name}.png"))
               for index, name in enumerate("ab")]  # fmt: skip
    page = run_page(run_with(tmp_path, {1: records}), resamples=10)
    assert "… 94000 more characters" in page
    assert "1 images are not embedded, because the page has many" in page
    assert len(page) < 100_000


def test_predictions_are_shown_with_their_metrics(tmp_path: Path) -> None:
    from support.predicted import record

    answers = [record("<answer> 2 </answer>", sample_id=f"f/{index}") for index in range(4)]
    page = " ".join("".join(parsed(predictions_page(tmp_path / "p.jsonl", answers, resamples=10)).text).split())
    assert "4 questions, with 95 % intervals" in page
    assert "4 of 4 questions: right and wrong answers in turn" in page
