"""Tests of the plots, which read the figure before it is saved and the pixels of the file."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from grit_lightning.data.shapes.completions import grounded_completion
from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.data.shapes.questions import make_question
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.training.callbacks import plots
from grit_lightning.training.callbacks.plots import chosen, plot_examples, plot_rewards, smoothed, wrapped
from grit_lightning.types import Completion, Prompt
from support.predicted import predicted
from support.samples import one_image

BOX_SPACE = (224, 224)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are saved."""
    saved: list[Figure] = []
    save = plots.save_figure

    def noting(figure: Figure, path: Path) -> None:
        saved.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "save_figure", noting)
    return saved


def answered(folder: Path, texts: list[str] | None = None) -> list[Prediction]:
    """Return predictions for two counting and five spatial questions: correct grounded ones, or those of ``texts``."""
    draw_dataset(count=5, seed=1, split="heldout").write(folder)
    ones = []
    for kind, count in (("tallyqa", 2), ("vsr", 5)):
        for index in range(count):
            question = make_question(1, index, kind, "heldout")
            image = folder / "images" / f"{kind}_heldout_1_{index}.png"
            boxes = tuple(shape.box for shape in question.targets)
            sample = one_image(
                f"{kind}/{index}", question.text, str(question.answer), image, question.scene.size, boxes, kind,
                "heldout", "f.jsonl:1",
            )  # fmt: skip
            text = texts[len(ones)] if texts else grounded_completion(question, BOX_SPACE)
            prompt = Prompt(sample, "?", torch.zeros(1), torch.zeros(3, 1), {}, (BOX_SPACE,))
            ones += predicted(prompt, Completion((1,), text, "stop", (BOX_SPACE,)))
    return ones


def test_rewards_are_drawn_against_their_steps(tmp_path: Path, figures: list[Figure]) -> None:
    history = [{"step": step, "total": step / 10, "count": 1.0, "format": math.nan} for step in range(1, 41)]
    plot_rewards(tmp_path / "rewards.png", history, only_logged={"format"})
    by_title = {axes.get_title(loc="left"): axes for axes in figures[0].axes}
    assert list(by_title) == ["total reward", "count", "format (logged, no reward)"]
    each, mean = by_title["total reward"].lines
    assert list(each.get_xdata()) == list(range(1, 41))
    assert list(each.get_ydata()) == [step / 10 for step in range(1, 41)]
    assert mean.get_ydata()[-1] == pytest.approx((3.7 + 3.8 + 3.9 + 4.0) / 4)
    with Image.open(tmp_path / "rewards.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["rewards.png"]


def test_a_single_step_is_drawn_as_a_dot(tmp_path: Path, figures: list[Figure]) -> None:
    plot_rewards(tmp_path / "rewards.png", [{"step": 1, "total": 2.0}])
    (axes,) = figures[0].axes
    assert axes.lines[0].get_marker() == "."


@pytest.mark.parametrize(
    ("values", "window", "expected"),
    [
        ([1.0, 2.0, 6.0], 1, [1.0, 2.0, 6.0]),
        ([1.0, 2.0, 6.0], 2, [1.0, 1.5, 4.0]),
        ([1.0, 2.0, 6.0], 9, [1.0, 1.5, 3.0]),
        ([math.nan, 2.0, math.nan, math.nan], 2, [math.nan, 2.0, 2.0, math.nan]),
        ([], 3, []),
    ],
)
def test_a_moving_average_ignores_nan(values: list, window: int, expected: list) -> None:
    assert smoothed(values, window) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ("cccccsssss", [0, 1, 2, 5, 6, 7]),
        ("cscscscscs", [0, 2, 4, 1, 3, 5]),
        ("csssssss", [0, 1, 2, 3, 4, 5]),
        ("cccccccs", [0, 1, 2, 3, 4, 7]),
        ("ss", [0, 1]),
    ],
)
def test_the_first_three_of_each_kind_are_shown(kinds: str, expected: list[int]) -> None:
    assert chosen([{"dataset": "tallyqa" if kind == "c" else "vsr"} for kind in kinds]) == expected


def test_examples_show_both_answers_and_their_boxes(tmp_path: Path, figures: list[Figure]) -> None:
    after = answered(tmp_path / "data")
    noise = '<think> $x^2$ {"bbox_2d":[0,0,112,56]} 日本 \x00 ' * 20
    before = answered(tmp_path / "data", [noise, "", "no", "<answer> 9 </answer>", "a\n\nb", noise, "no"])
    plot_examples(tmp_path / "examples.png", {"before": before, "after": after})
    pictures, words = figures[0].axes[::2], figures[0].axes[1::2]
    assert len(pictures) == len(words) == 2 * 6
    shown = [chosen(after)[row] for row in range(6)]
    for axes, index in zip(words[6:], shown, strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert texts[0] == "after"
        assert texts[1].replace("\n", " ") == after[index]["question"]
        assert texts[2].replace("\n", " ").startswith(f"{after[index]['answer']} – right (reference: ")
        assert to_hex(axes.texts[2].get_color()) == plots._RIGHT
        assert " ".join(texts[3].split()) == " ".join(after[index]["text"].split())
    assert [to_hex(axes.texts[2].get_color()) for axes in words[:6]] == [plots._WRONG] * 6
    assert words[1].texts[2].get_text().startswith("no answer – wrong")
    assert words[0].texts[3].get_text().endswith("\n…")
    # Row 0 before: twenty times the same box, written in the box space, drawn in original pixels.
    width, height = before[0]["image_size"]
    colours = [to_hex(patch.get_edgecolor()) for patch in pictures[0].patches]
    assert colours.count(plots._REFERENCE) == len(before[0]["reference_boxes"])
    drawn = [patch for patch in pictures[0].patches if to_hex(patch.get_edgecolor()) == plots._PREDICTED]
    assert len(drawn) == 20
    assert {(p.get_width(), p.get_height()) for p in drawn} == {(width / 2, height / 4)}


def test_no_text_overlaps_another_or_leaves_the_figure(tmp_path: Path, figures: list[Figure]) -> None:
    long = "<think> " + 'the wide word {"bbox_2d":[100,100,200,200]} ' * 30
    ones = answered(tmp_path / "data", [long] * 7)
    for one in ones:
        one |= {"question": "Is the very long question about the " * 9, "answer": "a reference answer " * 9}
    plot_examples(tmp_path / "examples.png", {"before": ones, "after": ones})
    figure = figures[0]
    renderer = figure.canvas.get_renderer()
    blocks = [text.get_window_extent(renderer) for axes in figure.axes for text in axes.texts]
    pictures = [axes.get_window_extent(renderer) for axes in figure.axes[::2]]
    assert len(blocks) == 4 * 12
    boxes = [*blocks, *pictures, *(legend.get_window_extent(renderer) for legend in figure.legends)]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[index + 1 :]:
            assert not matplotlib.transforms.Bbox.intersection(box.padded(-1), other.padded(-1)), (box, other)


def test_colours_reach_the_file(tmp_path: Path) -> None:
    plot_examples(tmp_path / "examples.png", {"after": answered(tmp_path / "data")})
    with Image.open(tmp_path / "examples.png") as image:
        pixels = {to_hex(pixel / 255) for pixel in np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)}
    assert {plots._PREDICTED, plots._RIGHT} <= pixels
    assert plots._WRONG not in pixels


def test_completions_are_wrapped_and_cut_off() -> None:
    assert wrapped("one\n\n  two  ") == "one\n\n  two"
    lines = wrapped("word " * 500).split("\n")
    assert len(lines) == plots._LINES
    assert lines[-1] == "…"
    assert max(map(len, lines)) <= plots._LINE_CHARACTERS
    assert wrapped("x" * 120).split("\n") == ["x" * 50, "x" * 50, "x" * 20]
