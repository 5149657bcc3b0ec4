"""Tests of the page about a run and about predictions: what it shows, and that no text of a stranger can act on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from grit_lightning.report import answers, pictures, rollouts
from grit_lightning.report.run_page import evaluation_page, run_page
from support.pages import NASTY, completion, parsed, run_with


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
    monkeypatch.setattr(rollouts, "MOST_COMPLETIONS", 6)
    run = run_with(tmp_path, {step: [completion("x", index) for index in (0, 1)] for step in range(1, 10)})
    page = " ".join("".join(parsed(run_page(run, resamples=10)).text).split())
    assert "3 of 9 steps, each with all of its completions, evenly spaced" in page
    assert [int(one) for one in re.findall(r"step (\d+) \d+ prompts", page)] == [1, 5, 9]


def test_long_texts_and_many_images_are_limited_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        Image.new("RGB", (60, 50), "green").save(tmp_path / f"{name}.png")
    monkeypatch.setattr(pictures, "IMAGE_BYTES", 10)
    records = [completion("y" * 100_000, index, slot=index, image=str(tmp_path / f"{name}.png"))
               for index, name in enumerate("ab")]  # fmt: skip
    page = run_page(run_with(tmp_path, {1: records}), resamples=10)
    assert "… 94000 more characters" in page
    assert "1 images are not embedded, because the page has many" in page
    assert len(page) < 100_000


def test_predictions_are_shown_with_their_metrics(tmp_path: Path) -> None:
    from support.predicted import record

    answers = [record("<answer> 2 </answer>", sample_id=f"f/{index}") for index in range(4)]
    page = " ".join("".join(parsed(evaluation_page(tmp_path / "p.jsonl", answers, resamples=10)).text).split())
    assert "4 questions" in page
    assert "4 of 4 questions: those shown are evenly spaced in the data" in page


def test_every_answer_that_flipped_is_shown_and_others_are_typical(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.predicted import record

    def answered(right: set[int]) -> str:
        ones = [record("<answer> 2 </answer>", sample_id=f"f/{index}") for index in range(90)]
        scored = [one | {"scores": {"judge": float(index in right)}} for index, one in enumerate(ones)]
        return "".join(json.dumps(one) + "\n" for one in scored)

    monkeypatch.setattr(answers, "OTHERS", 10)
    run = run_with(tmp_path, {1: [completion("x")]})
    run.evaluation.mkdir()
    run.before_file.write_text(answered({*range(0, 20)}))
    run.after_file.write_text(answered({*range(10, 40)}))
    page = parsed(run_page(run, resamples=10))
    kinds = [attrs["data-kind"] for tag, attrs in page.tags if tag == "section" and "data-kind" in attrs]
    assert kinds[:30] == ["wrong → right"] * 20 + ["right → wrong"] * 10, "all flips, first those that became right"
    assert len(kinds) == 40
    assert set(kinds[30:]) == {"right → right", "wrong → wrong"}
    text = " ".join("".join(page.text).split())
    assert "40 of 90 questions: all 30 that became right or wrong, then others evenly spaced in the data" in text
    monkeypatch.setattr(answers, "ANSWER_BYTES", 50_000)
    text = " ".join("".join(parsed(run_page(run, resamples=10)).text).split())
    assert re.search(r"questions: \d+ of 30 that became right or wrong", text)
