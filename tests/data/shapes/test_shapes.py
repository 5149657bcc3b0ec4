"""The shapes world: reproducible, balanced, true to its pictures, and split so that nothing leaks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from grit_lightning.data.images import load_image
from grit_lightning.data.records import read_samples
from grit_lightning.data.shapes import (
    KINDS,
    corpus,
    draw,
    grounded_completion,
    image_split,
    layout_split,
    make_example,
    make_question,
    write_dataset,
)
from grit_lightning.data.shapes.__main__ import main
from grit_lightning.data.shapes.lessons import LISTINGS, Curriculum, lessons
from grit_lightning.data.shapes.questions import RELATIONS
from grit_lightning.data.shapes.scenes import (
    BACKGROUNDS,
    COLOURS,
    DIFFICULTIES,
    EARLY,
    FORMS,
    HARD,
    LATTICE_PX,
    MARGIN_PX,
    STANDARD,
    Scene,
    Shape,
    make_scene,
)
from grit_lightning.errors import DataError
from grit_lightning.types import Sample

SHAPES20 = Path(__file__).parents[3] / "src/grit_lightning/assets/shapes20"


def questions(kind: str, count: int, split: str = "train", seed: int = 0, difficulty=STANDARD):
    return [make_question(seed, index, kind, split, difficulty) for index in range(count)]


@pytest.mark.parametrize("index", [3, 4])
def test_an_example_is_a_pure_function_of_its_arguments(index):
    image, record = make_example(7, index)
    again, same = make_example(7, index)
    assert record == same
    assert record["dataset"] == KINDS[index % 2]
    assert image.size == (record["width"], record["height"])
    assert image.tobytes() == again.tobytes()
    assert make_example(8, index)[1]["question"] != record["question"]


def test_the_bundled_data_set_is_what_the_generator_makes(tmp_path):
    result = subprocess.run(
        [sys.executable, "-m", "grit_lightning.data.shapes", str(tmp_path)], capture_output=True, text=True, check=True
    )
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert made == sorted(path.relative_to(SHAPES20) for path in SHAPES20.rglob("*.*"))
    assert len(result.stdout.splitlines()) == 2
    for name in made:
        if name.suffix == ".jsonl":
            assert (tmp_path / name).read_bytes() == (SHAPES20 / name).read_bytes()
        else:
            with Image.open(tmp_path / name) as new, Image.open(SHAPES20 / name) as old:
                assert (new.mode, new.size, new.tobytes()) == (old.mode, old.size, old.tobytes())
    assert sum(path.stat().st_size for path in SHAPES20.rglob("*.*")) < 200_000


def test_the_reader_accepts_what_is_written(tmp_path):
    for file in write_dataset(tmp_path, count=30, seed=2, split="heldout"):
        samples = list(read_samples(file, tmp_path / "images"))
        assert len(samples) == 30
        for sample in samples:
            assert isinstance(sample, Sample), sample
            assert load_image(sample).size == sample.size
            assert (sample.dataset, sample.split) == (file.name.split("_")[1], "heldout")


def test_training_and_held_out_examples_share_no_image_and_no_layout():
    seen = {"train": set(), "heldout": set()}
    for split, layouts in seen.items():
        for kind in KINDS:
            for question in questions(kind, 100, split):
                assert layout_split(question.scene.size, question.scene.shapes) == split
                assert image_split(draw(question.scene)) == split
                layouts.add((question.scene.size, frozenset(question.scene.shapes)))
    assert len(seen["train"]) > 190  # they do not repeat themselves either
    assert not seen["train"] & seen["heldout"]


def test_the_split_of_a_layout_does_not_depend_on_the_order_of_its_objects():
    shapes = make_scene(Random("order"), [("red", "triangle"), ("blue", "circle"), ("green", "square")]).shapes
    assert layout_split((112, 112), shapes) == layout_split((112, 112), shapes[::-1])


def test_the_top_left_pixel_is_background_in_every_scene():
    for index in range(100):
        scene = make_question(1, index, "tallyqa", "train").scene
        assert draw(scene).getpixel((0, 0)) == scene.background


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", [*HARD.sides_px, 21, 74])
def test_boxes_enclose_the_drawn_object_tightly(form, side):
    shape = Shape("red", form, 22, 9, side)
    size, background = (112, 100), (100, 250, 100)
    pixels = np.asarray(draw(Scene(size, background, (shape,)))) != np.asarray(draw(Scene(size, background, ())))
    rows, columns = np.nonzero(pixels.any(axis=2))
    drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert drawn == shape.box
    centre = (9 + side // 2, 22 + side // 2)
    assert tuple(np.asarray(draw(Scene(size, background, (shape,))))[centre]) == COLOURS["red"]


def test_the_background_tells_where_a_pixel_is():
    picture = np.asarray(draw(Scene((168, 140), (100, 250, 100), ()))).astype(int)
    down, across = np.mgrid[:140, :168]
    assert (picture[..., 0] == 100 + 3 * across // 5).all()
    assert (picture[..., 1] == 250).all()
    assert (picture[..., 2] == 100 + 3 * down // 5).all()


def test_no_background_hides_a_shape():
    shades = [(100 + u, b[1], 100 + v) for b in BACKGROUNDS for u in range(0, 102, 10) for v in range(0, 102, 10)]
    least = min(sum((a - b) ** 2 for a, b in zip(c, s, strict=True)) ** 0.5 for c in COLOURS.values() for s in shades)
    assert least > 60  # of 255 levels


def test_objects_keep_their_distance():
    for index in range(100):
        scene = make_question(3, index, "tallyqa", "train").scene
        boxes = [shape.box for shape in scene.shapes]
        assert all(value % LATTICE_PX == 0 for box in boxes for value in box)
        for number, (x1, y1, x2, y2) in enumerate(boxes):
            assert min(x1, y1, scene.size[0] - x2, scene.size[1] - y2) >= MARGIN_PX
            for u1, v1, u2, v2 in boxes[:number]:
                assert max(u1 - x2, x1 - u2, v1 - y2, y1 - v2) >= MARGIN_PX


def test_counts_are_right_and_balanced():
    asked = questions("tallyqa", 120)
    assert Counter(question.answer for question in asked) == dict.fromkeys(range(STANDARD.max_count + 1), 30)
    for question in asked:
        words = re.fullmatch(r"How many (.+)s are there\?", question.text)[1].split()
        matching = [s for s in question.scene.shapes if all(word in ("shape", *s.label.split()) for word in words)]
        assert len(matching) == question.answer
        assert sorted(question.targets) == sorted(matching)


def test_spatial_answers_are_right_and_balanced():
    asked = questions("vsr", 200)
    assert Counter(q.answer if q.answer in ("Yes", "No") else "what" for q in asked) == {
        "Yes": 50,
        "No": 50,
        "what": 100,
    }
    for question in asked:
        subject, reference = question.targets
        by_label = {shape.label: shape for shape in question.scene.shapes}
        assert len(by_label) == len(question.scene.shapes)  # every name means one object
        if question.answer in ("Yes", "No"):
            match = re.fullmatch(r"Is the (\w+ \w+) (.+) the (\w+ \w+)\?", question.text)
            assert (match[1], match[3]) == (subject.label, reference.label)
            assert is_beyond(match[2], subject, reference) == (question.answer == "Yes")
            assert is_beyond(match[2], reference, subject) == (question.answer == "No")
        else:
            match = re.fullmatch(r"What is (.+) the (\w+ \w+)\?", question.text)
            assert (question.answer, match[2]) == (subject.label, reference.label)
            answers = [shape for shape in question.scene.shapes if is_beyond(match[1], shape, reference)]
            assert answers == [subject]


def is_beyond(phrase: str, subject: Shape, reference: Shape) -> bool:
    """The relation, judged from the boxes alone, wholly apart along its axis."""
    (a1, b1, a2, b2), (u1, v1, u2, v2) = subject.box, reference.box
    return {"left": a2 <= u1, "right": a1 >= u2, "above": b2 <= v1, "below": b1 >= v2}[
        re.search("left|right|above|below", phrase)[0]
    ]


@pytest.mark.parametrize("difficulty", DIFFICULTIES.values(), ids=DIFFICULTIES)
def test_scenes_are_as_hard_as_asked_for(difficulty):
    counting, spatial = (questions(kind, 60, difficulty=difficulty) for kind in KINDS)
    assert {shape.side for q in (*counting, *spatial) for shape in q.scene.shapes} == set(difficulty.sides_px)
    assert {len(q.scene.shapes) for q in spatial} == set(difficulty.spatial_shapes)
    subjects = [q.subject.removesuffix("s").split() for q in counting]
    by = Counter("form" if len(words) == 1 else "colour" if words[1] == "shape" else "both" for words in subjects)
    wanted = Counter(difficulty.counted_by)
    for name, times in wanted.items():
        assert by[name] / 60 == pytest.approx(times / wanted.total(), abs=0.2)


@pytest.mark.parametrize("difficulty", [STANDARD, HARD], ids=["standard", "hard"])
def test_how_many_objects_there_are_does_not_tell_how_many_are_counted(difficulty):
    totals: dict[int, Counter] = {}
    for question in questions("tallyqa", 400, difficulty=difficulty):
        totals.setdefault(question.answer, Counter())[len(question.scene.shapes)] += 1
    assert set(totals) == set(range(difficulty.max_count + 1))
    for seen in totals.values():
        assert set(seen) == set(difficulty.counting_shapes)
        assert max(seen.values()) < 2 * min(seen.values())


def test_all_relations_forms_and_colours_occur():
    text = " ".join(question.text for kind in KINDS for question in questions(kind, 200))
    assert all(relation.is_phrase in text and relation.what_phrase in text for relation in RELATIONS)
    assert all(re.search(rf"\b{word}s?\b", text) for word in (*COLOURS, *FORMS, "shape"))


@pytest.mark.parametrize("kind", KINDS)
def test_completions_have_the_form_of_grit_and_point_at_the_targets(kind):
    for question in questions(kind, 60):
        width, height = question.scene.size
        text = grounded_completion(question, (2 * width, 3 * height))
        match = re.fullmatch(r"<think> (.+) </think> <rethink> (.+) </rethink> <answer> (.+) </answer>", text)
        assert match[3] == str(question.answer)
        objects = [(name, json.loads(box)) for name, box in re.findall(r"(\w+ \w+) (\{.*?\})", match[1])]
        assert objects == [
            (s.label, {"bbox_2d": [2 * s.box[0], 3 * s.box[1], 2 * s.box[2], 3 * s.box[3]]}) for s in question.targets
        ]
        assert text == grounded_completion(question, (2 * width, 3 * height))


PROMPTS = {"grounded": "Q: {question} First, think.", "plain": "{question}"}


def curriculum(**values) -> Curriculum:
    defaults = {"difficulties": ((0, STANDARD),), "listings": 10**6, "prompts": PROMPTS, "grounded_share": 0.25}
    return Curriculum(**(defaults | values))


def test_lessons_are_pure_true_and_of_training_scenes():
    plan = curriculum(few_shapes=((20, 1), (40, 3)), answering=((0, 0.5),), grounded_share=0.5)
    for index in range(80):
        taught = lessons(3, index, plan)
        assert taught == lessons(3, index, plan)
        (scene,) = {lesson.scene for lesson in taught}
        assert layout_split(scene.size, scene.shapes) == "train"
        assert len(taught) == 3
        if index < 40:
            assert len(scene.shapes) <= (1 if index < 20 else 3)
        boxes = {tuple(shape.box): shape.label for shape in scene.shapes}
        for lesson in taught:
            written = [tuple(json.loads(found)["bbox_2d"]) for found in re.findall(r"\{.*?\}", lesson.completion)]
            assert set(written) <= set(boxes)
            if "every" in lesson.prompt:
                named = re.findall(r"(\w+ \w+)(?= \{)|(?<=\} )(\w+ \w+)", lesson.completion)
                assert [first or last for first, last in named] == [boxes[box] for box in written]
                assert sorted(written) == sorted(boxes)


def test_where_lessons_name_every_shape_asked_for_and_no_other():
    plan = curriculum(few_shapes=((100, 5),), answering=((0, 0.5),), grounded_share=0.25)
    nowhere = 0
    for index in range(300):
        lesson = lessons(1, index, plan)[2 if index < 100 else 1]
        words = re.fullmatch(r"Where are the (.+)s\?", lesson.prompt)[1].split()
        matching = [s for s in lesson.scene.shapes if all(word in ("shape", *s.label.split()) for word in words)]
        found = re.findall(r"(\w+ \w+) (\{.*?\})", lesson.completion)
        assert {(name, tuple(json.loads(box)["bbox_2d"])) for name, box in found} == {
            (s.label, s.box) for s in matching
        }
        assert len(found) == len(matching)
        nowhere += lesson.completion == "There are none."
    assert 0 < nowhere < 60


def test_the_habit_of_lessons_is_as_configured():
    plan = curriculum(few_shapes=(), answering=((0, 0.5),), grounded_share=0.25)
    taught = [lessons(0, index, plan) for index in range(800)]
    assert all(x.prompt.endswith("Think with boxes.") and x.completion.startswith("<think>") for x, *_ in taught)
    third = [lesson for *_, lesson in taught if "every shape" not in lesson.prompt]
    asked = [lesson for lesson in third if lesson.prompt.startswith("Q: ")]
    plain = [lesson for lesson in third if not lesson.prompt.startswith("Q: ")]
    assert 350 < len(third) < 450 and 150 < len(asked) < 250
    grounded = sum(lesson.completion.startswith("<think>") for lesson in asked)
    assert grounded / len(asked) == pytest.approx(0.25, abs=0.08)
    assert not any("<" in lesson.completion or "bbox" in lesson.completion for lesson in plain)


def test_corpus():
    texts = list(corpus(4, 10))
    assert texts == list(corpus(4, 10))
    first = make_question(4, 0, "tallyqa", "train", EARLY)
    assert texts[0] == f"{first.text}\n{grounded_completion(first, first.scene.size)}"
    assert [text.startswith("How many") for text in texts] == [True, False] * 5
    assert len(set(texts)) == 10


def test_writing_twice_changes_nothing(tmp_path):
    write_dataset(tmp_path, count=2, seed=1, split="train")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    write_dataset(tmp_path, count=2, seed=1, split="train")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")} == before
    assert len(before) == 6


def test_other_content_is_never_overwritten(tmp_path, capsys):
    file, _ = write_dataset(tmp_path, count=2, seed=1, split="train")
    files = sorted(tmp_path.rglob("*.*"))
    with pytest.raises(DataError) as caught:
        write_dataset(tmp_path, count=2, seed=9, split="train")
    assert str(caught.value) == f"{file}: the file exists with other content; expected an empty folder"
    assert sorted(tmp_path.rglob("*.*")) == files
    assert main([str(tmp_path), "--count", "2", "--seed", "9"]) == 1
    assert capsys.readouterr().err == f"error: {caught.value}\n"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out: cannot write the data set \(Not a directory\)"):
        write_dataset(tmp_path / "file" / "out", count=1, seed=0, split="train")


def test_the_command_line(tmp_path, capsys):
    assert main([str(tmp_path), "--count", "1", "--split", "heldout"]) == 0
    names = [f"shapes_{kind}_heldout_1.jsonl" for kind in KINDS]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--count", "0"])
    assert "expected at least 1" in capsys.readouterr().err


def test_the_share_of_answering_lessons_changes_with_the_scenes():
    plan = curriculum(few_shapes=(), answering=((0, 1.0), (100, 0.0)), grounded_share=0.25)
    listed = [lessons(0, index, plan)[2].prompt in LISTINGS for index in range(90, 110)]
    assert listed == [False] * 10 + [True] * 10


def test_late_lessons_are_easier_and_list_no_shapes():
    plan = curriculum(few_shapes=(), answering=((0, 0.0),), difficulties=((0, EARLY), (100, STANDARD)), listings=50)
    taught = [lessons(0, index, plan) for index in range(200)]
    assert all((third.prompt in LISTINGS) == (index < 50) for index, (*_, third) in enumerate(taught))
    sides = [
        {shape.side for first, *_ in part for shape in first.scene.shapes} for part in (taught[:100], taught[100:])
    ]
    assert sides == [set(EARLY.sides_px), set(STANDARD.sides_px)]
