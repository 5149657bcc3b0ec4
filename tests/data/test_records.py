"""Tests of the JSONL reader: valid lines become samples, and each kind of invalid line gives one sentence."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from grit_lightning.data.records import read_samples
from grit_lightning.errors import DataError
from grit_lightning.types import ImageFile, Region, Sample
from support.photographs import VSR10, needs_photographs


def read(file: Path) -> list[Sample | DataError]:
    return list(read_samples(file, file.parent / "images"))


def messages(file: Path) -> list[str]:
    items = read(file)
    assert all(isinstance(item, DataError) for item in items), items
    return [str(item) for item in items]


def test_a_good_line_becomes_a_sample(write, record, tmp_path):
    file = write(record(), record(answer="No", note="further fields reach the rewards"))
    first, second = read(file)
    assert first == Sample(
        id="cats/1",
        question="How many cats are there?",
        answer="2",
        images=(ImageFile(tmp_path / "images" / "a.png", (40, 30)),),
        regions=(Region((1.5, 2.0, 20.0, 28.0)),),
        dataset="tallyqa",
        split="train",
        source=f"{file}:1",
    )
    assert (second.id, second.answer, second.source) == ("cats/2", "No", f"{file}:2")
    assert second.extra == {"note": "further fields reach the rewards"}


def test_optional_fields_have_defaults(write, record):
    bare = {name: value for name, value in record().items() if name not in ("bboxs", "dataset", "split")}
    absent, null = read(write(bare, record(bboxs=None, dataset=None, split=None)))
    for sample in (absent, null):
        assert (sample.boxes, sample.dataset, sample.split) == ((), "cats", "")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (3.0, "3"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        (10**30, "1" + 30 * "0"),
    ],
)
def test_a_numeric_answer_becomes_decimal_text(write, record, number, text):
    (sample,) = read(write(record(answer=number)))
    assert sample.answer == text


def test_blank_lines_byte_order_mark_carriage_returns_and_line_separators_are_tolerated(write, record):
    odd = json.dumps(record(question="line\u2028separator?"), ensure_ascii=False).encode()
    file = write(b"\xef\xbb\xbf" + odd + b"\r", b"  ", record())
    first, second = read(file)
    assert first.question == "line\u2028separator?"
    assert second.id == "cats/3"  # numbered as an editor shows it


def test_duplicate_lines_are_separate_samples(write, record):
    assert [sample.id for sample in read(write(record(), record()))] == ["cats/1", "cats/2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "caf\xe9"}', "not UTF-8 at byte 18 of the line (0xe9)"),
        (
            b'{"question": "How ma',
            "not valid JSON at column 14 (Unterminated string starting at); is the line cut off?",
        ),
        (b"[1, 2]", "expected a JSON object, found a list"),
        (b"null", "expected a JSON object, found null"),
        (b"[" * 100_000, "not usable JSON (maximum recursion depth exceeded"),
    ],
)
def test_a_line_that_is_no_json_object_is_named_and_the_others_are_read(write, record, line, message):
    file = write(record(), line, record())
    good, problem, after = read(file)
    assert isinstance(good, Sample)
    assert isinstance(after, Sample)
    assert str(problem).startswith(f"{file}:2: {message}")
    assert problem.source == f"{file}:2"


@pytest.mark.parametrize("name", ["question", "answer", "image", "width", "height"])
def test_a_missing_or_null_required_field_is_named(write, record, name):
    without = {key: value for key, value in record().items() if key != name}
    file = write(without, record(**{name: None}))
    missing, null = messages(file)
    assert missing.startswith(f"{file}:1: field '{name}' is missing; expected a ")
    assert null.startswith(f"{file}:2: field '{name}' is null; expected a ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": 3}, "field 'question' is a number; expected a non-empty string"),
        ({"question": " "}, "field 'question' is empty; expected a non-empty string"),
        ({"question": "\ud83d?"}, "field 'question' holds half of a surrogate pair (\\ud8xx); expected valid Unicode"),
        ({"answer": True}, "field 'answer' is true; expected a non-empty string or a number"),
        ({"answer": ["2"]}, "field 'answer' is a list; expected a non-empty string or a number"),
        ({"answer": ""}, "field 'answer' is empty; expected a non-empty string or a number"),
        ({"answer": float("nan")}, "field 'answer' is nan; expected a finite number"),
        ({"image": "/etc/a.png"}, "field 'image' is '/etc/a.png'; expected a file name relative to the image folder"),
        (
            {"image": "x/../../a.png"},
            "field 'image' is 'x/../../a.png'; expected a file name relative to the image folder",
        ),
        ({"width": 40.5}, "field 'width' is 40.5; expected a positive integer (pixels)"),
        ({"height": 0}, "field 'height' is 0; expected a positive integer (pixels)"),
        ({"width": True}, "field 'width' is true; expected a positive integer (pixels)"),
        ({"width": 10**400}, f"field 'width' is 1{'0' * 56}...; expected a positive integer (pixels)"),
        ({"width": float("inf")}, "field 'width' is Infinity; expected a positive integer (pixels)"),
        ({"height": 1_000_001}, "field 'height' is 1000001; expected a positive integer (pixels)"),
        ({"answer": float("-inf")}, "field 'answer' is -inf; expected a finite number"),
        (
            {"answer": "<answer> No </answer>"},
            "field 'answer' is \"<answer> No </answer>\"; expected the answer alone, without <answer>",
        ),
        (
            {"answer": "so </Answer>"},
            "field 'answer' is \"so </Answer>\"; expected the answer alone, without </Answer>",
        ),
        ({"answer": "\\boxed{7}"}, "field 'answer' is \"\\\\boxed{7}\"; expected the answer alone, without \\boxed"),
        (
            {"answer": "<think>x</think> 7"},
            "field 'answer' is \"<think>x</think> 7\"; expected the answer alone, without <think>",
        ),
        ({"answer": "7<|im_end|>"}, "field 'answer' is \"7<|im_end|>\"; expected the answer alone, without <|im_end|>"),
        ({"bboxs": [[1, 2, 10**400, 4]]}, f"field 'bboxs[0]' is [1, 2, 1{'0' * 49}...; expected finite numbers"),
        (
            {"bboxs": [[0.1, 0.2, 0.5, 0.6]]},
            "field 'bboxs[0]' is [0.1, 0.2, 0.5, 0.6]; expected original pixels, not shares of the sides",
        ),
        (
            {"bboxs": [[1, 2, 3, 4], [0, 0, 1, 1]]},
            "field 'bboxs[1]' is [0, 0, 1, 1]; expected original pixels, not shares of the sides",
        ),
        ({"width": "40"}, "field 'width' is \"40\"; expected a positive integer (pixels)"),
        ({"dataset": 7}, "field 'dataset' is a number; expected a string"),
        ({"split": {}}, "field 'split' is an object; expected a string"),
        ({"bboxs": "1,2,3,4"}, "field 'bboxs' is a string; expected a list of [x1, y1, x2, y2] boxes"),
        ({"bboxs": [[1, 2, 3]]}, "field 'bboxs[0]' is [1, 2, 3]; expected four numbers [x1, y1, x2, y2]"),
        ({"bboxs": [[1, 2, 3, "4"]]}, "field 'bboxs[0]' is [1, 2, 3, \"4\"]; expected four numbers [x1, y1, x2, y2]"),
        ({"bboxs": [[1, 2, 3, 4], 5]}, "field 'bboxs[1]' is 5; expected four numbers [x1, y1, x2, y2]"),
        ({"bboxs": [[1, 2, float("nan"), 4]]}, "field 'bboxs[0]' is [1, 2, NaN, 4]; expected finite numbers"),
        ({"bboxs": [[1, 2, float("inf"), 4]]}, "field 'bboxs[0]' is [1, 2, Infinity, 4]; expected finite numbers"),
        ({"bboxs": [[9, 2, 3, 4]]}, "field 'bboxs[0]' is [9, 2, 3, 4]; expected x1 < x2 and y1 < y2"),
        ({"bboxs": [[1, 4, 3, 4]]}, "field 'bboxs[0]' is [1, 4, 3, 4]; expected x1 < x2 and y1 < y2"),
        ({"bboxs": [[40.2, 0, 40.9, 4]]}, "field 'bboxs[0]' is [40.2, 0, 40.9, 4]; expected x1 < x2 and y1 < y2"),
        (
            {"bboxs": [[1, 2, 41.1, 4]]},
            "field 'bboxs[0]' is [1, 2, 41.1, 4]; expected a box within {size}",
        ),
        (
            {"bboxs": [[1, -1.1, 4, 4]]},
            "field 'bboxs[0]' is [1, -1.1, 4, 4]; expected a box within {size}",
        ),
    ],
)
def test_an_invalid_field_is_named_with_its_value_and_the_expected_one(write, record, changes, message):
    file = write(record(**changes))
    assert messages(file) == [f"{file}:1: {message.replace('{size}', 'the 40 × 30 px image')}"]


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("width", "9" * 5000, "field 'width' is Infinity; expected a positive integer (pixels)"),
        ("width", "1e999", "field 'width' is Infinity; expected a positive integer (pixels)"),
        ("answer", "-" + "9" * 5000, "field 'answer' is -inf; expected a finite number"),
        ("answer", "1e999", "field 'answer' is inf; expected a finite number"),
        ("bboxs", f"[[1, 2, {'9' * 5000}, 4]]", "field 'bboxs[0]' is [1, 2, Infinity, 4]; expected finite numbers"),
        ("bboxs", "[" * 900 + "]" * 900, "field 'bboxs[0]' is "),
    ],
)
def test_a_number_of_any_size_is_named_by_its_field(write, record, name, number, message):
    line = json.dumps(record(**{name: "HERE"})).replace('"HERE"', number)
    file = write(line.encode())
    (found,) = messages(file)
    assert found.startswith(f"{file}:1: {message}")


@pytest.mark.parametrize("depth", range(100, 100_000, 3331))
def test_any_depth_of_nesting_is_a_problem_of_its_line(write, record, depth):
    line = json.dumps(record(bboxs="HERE")).replace('"HERE"', "[" * depth + "]" * depth)
    (found,) = messages(write(line.encode()))
    assert ":1: field 'bboxs[0]' is " in found or ":1: not usable JSON (" in found


def test_words_that_only_resemble_markup_are_answers(write, record):
    answers = ["boxed lunch", "< 5", "x < y > z", "answer", "a|b"]
    assert [sample.answer for sample in read(write(*(record(answer=answer) for answer in answers)))] == answers


def test_a_box_of_one_pixel_elsewhere_is_no_share(write, record):
    (sample,) = read(write(record(bboxs=[[1, 1, 2, 2]])))
    assert sample.boxes == ((1.0, 1.0, 2.0, 2.0),)


@pytest.mark.parametrize(
    ("indent", "kind"), [(None, "array"), (1, "array"), (None, "object"), (2, "object over several lines")]
)
def test_one_json_document_is_one_problem_of_the_file(write, record, indent, kind):
    document = record() if "object" in kind else [record(), record()]
    for content in (json.dumps(document, indent=indent), json.dumps(document, indent=indent)[:-1]):
        file = write(b"\xef\xbb\xbf" + content.encode())
        if indent is None and (kind == "object" or content[-1] != "]"):
            assert all("one JSON" not in str(item) for item in read(file))  # a valid line, or a torn one
        else:
            assert messages(file) == [
                f"{file}: the file is one JSON {kind}; expected JSON Lines, one JSON object per line"
            ]


def test_a_pipe_is_named_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    assert messages(tmp_path / "a.jsonl") == [f"{tmp_path / 'a.jsonl'}: is not a regular file"]


def test_a_box_over_the_edge_by_up_to_a_pixel_is_cut_at_the_edge(write, record):
    (sample,) = read(write(record(bboxs=[[-1.0, -0.5, 41.0, 30.25]])))
    assert sample.boxes == ((0.0, 0.0, 40.0, 30.0),)


def test_all_problems_of_a_line_are_found(write, record):
    file = write(record(question="", width="w", bboxs=[[1, 2], [0, 0, 4, 4]]))
    assert [message.split("'")[1] for message in messages(file)] == ["width", "question", "bboxs[0]"]


def test_a_long_value_is_shortened(write, record):
    (message,) = messages(write(record(bboxs=[list(range(1000))])))
    assert len(message.split("; ")[0].split(" is ")[1]) == 60


def test_empty_and_missing_files_are_one_problem_each(write, tmp_path):
    for file in (write(name="empty.jsonl"), write(b" ", name="blank.jsonl")):
        assert messages(file) == [f"{file}: the file holds no samples; expected one JSON object per line"]
    gone = tmp_path / "gone.jsonl"
    assert messages(gone) == [f"{gone}: cannot read the data file (No such file or directory)"]


@needs_photographs
def test_the_ten_vsr_samples_of_grit_are_read():
    samples = list(read_samples(VSR10 / "vsr_cot_train_10.jsonl", VSR10 / "images"))
    assert [sample.id for sample in samples] == [f"vsr_cot_train_10/{line}" for line in range(1, 11)]
    assert samples[0].boxes == ((0.0, 2.25, 333.0, 494.38),)
    assert (samples[0].answer, samples[0].size, samples[0].dataset) == ("No", (333, 500), "vsr")


def several(record, **changes):
    images = [{"image": "a.png", "width": 40, "height": 30}, {"image": "b/c.jpg", "width": 9, "height": 70}]
    fields = record(images=images, bboxs=[], **changes)
    return {name: value for name, value in fields.items() if name not in ("image", "width", "height")}


def test_several_images_labels_options_and_further_fields(write, record, tmp_path):
    boxes = [[1, 2, 3, 4], {"bbox_2d": [1, 2, 8, 70], "label": "dog", "image": 2}, {"bbox_2d": [0, 0, 40, 30]}]
    changes = {"options": ["2 ", "three"], "answer": "B", "level": {"deep": [1, None]}, "tag": "x"}
    (sample,) = read(write(several(record, question="In <image> or <image>?", **changes) | {"bboxs": boxes}))
    assert sample.images == (
        ImageFile(tmp_path / "images" / "a.png", (40, 30)),
        ImageFile(tmp_path / "images" / "b" / "c.jpg", (9, 70)),
    )
    assert sample.sizes == ((40, 30), (9, 70))
    assert sample.regions == (
        Region((1.0, 2.0, 3.0, 4.0), 0, None),
        Region((1.0, 2.0, 8.0, 70.0), 1, "dog"),
        Region((0.0, 0.0, 40.0, 30.0), 0, None),
    )
    assert (sample.options, sample.answer) == (("2", "three"), "three")
    assert sample.extra == {"level": {"deep": [1, None]}, "tag": "x"}
    hash(sample)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": "<image> or?"}, "field 'question' has 1 <image> mark; expected one for each image, 2, or none"),
        ({"question": "<image><image><image>"}, "field 'question' has 3 <image> marks; expected one for each image, 2"),
        ({"image": "a.png"}, "fields 'image' and 'images' are both given; expected one of them"),
        ({"images": []}, "field 'images' is []; expected a list of objects with the fields image, width and height"),
        ({"images": ["a.png"]}, "field 'images' is [\"a.png\"]; expected a list of objects with the fields image, "),
        (
            {"images": [{"image": "a.png", "width": 4}]},
            "field 'images[0].height' is missing; expected a positive integer",
        ),
        (
            {"images": [{"image": "../a.png", "width": 4, "height": 4}]},
            "field 'images[0].image' is '../a.png'; expected a file name relative to the image folder",
        ),
        (
            {"bboxs": [{"bbox_2d": [1, 2, 20, 28], "image": 2}]},
            "field 'bboxs[0].bbox_2d' is [1, 2, 20, 28]; expected a box within the 9 × 70 px image",
        ),
        (
            {"bboxs": [{"bbox_2d": [1, 2, 3, 4], "image": 3}]},
            "field 'bboxs[0].image' is 3; expected a number from 1 to 2",
        ),
        (
            {"bboxs": [{"bbox_2d": [1, 2, 3, 4], "image": True}]},
            "field 'bboxs[0].image' is true; expected a number from",
        ),
        (
            {"bboxs": [{"bbox": [1, 2, 3, 4]}]},
            "field 'bboxs[0].bbox_2d' is null; expected four numbers [x1, y1, x2, y2]",
        ),
        (
            {"bboxs": [{"bbox_2d": [1, 2, 3, 4], "label": 3}]},
            "field 'bboxs[0].label' is a number; expected a non-empty ",
        ),
        ({"options": "yes, no"}, "field 'options' is \"yes, no\"; expected a list of 2 to 26 different texts"),
        ({"options": ["yes"]}, "field 'options' is [\"yes\"]; expected a list of 2 to 26 different texts"),
        ({"options": ["yes", "yes "]}, 'field \'options\' is ["yes", "yes "]; expected a list of 2 to 26 different '),
        ({"options": ["yes", "\ud83d"]}, 'field \'options\' is ["yes", "\\ud83d"]; expected a list of 2 to 26 '),
        (
            {"options": ["yes", "no"], "answer": "C"},
            "field 'answer' is \"C\"; expected one of the options or its letter",
        ),
        ({"score": float("nan")}, "field 'score' is NaN; expected finite numbers in all further fields"),
    ],
)
def test_what_is_wrong_with_several_images_options_and_further_fields_is_named(write, record, changes, message):
    file = write(several(record) | changes)
    (found,) = messages(file)
    assert found.startswith(f"{file}:1: {message}")


def test_a_mark_may_place_a_single_image_and_more_are_an_error(write, record):
    file = write(record(question="What is in <image>?"), record(question="<image><image>"))
    good, wrong = read(file)
    assert good.question == "What is in <image>?"
    assert str(wrong) == f"{file}:2: field 'question' has 2 <image> marks; expected one for each image, 1, or none"


def test_a_sample_takes_less_than_a_kilobyte_beyond_its_text(write, record):
    count = 2000
    file = write(
        *(record(question=f"How many cats are there in picture {index}?", number=index) for index in range(count))
    )
    tracemalloc.start()
    try:
        samples = list(read_samples(file, file.parent / "images"))
        taken, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples) == count
    assert (taken - file.stat().st_size) / count < 1000
    assert peak - taken < file.stat().st_size / 2, "the file is not held as a whole"
    assert samples[0].images[0] is samples[-1].images[0]
    assert samples[0].dataset is samples[-1].dataset
