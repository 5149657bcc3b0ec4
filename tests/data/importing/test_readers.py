"""Tests of the readers of other projects' layouts: each example becomes the record that was written by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from grit_lightning.data.importing.writer import Import, Settings
from grit_lightning.data.records import read_samples
from grit_lightning.errors import ConfigError
from grit_lightning.types import Sample

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


def picture(size: tuple[int, int], colour: str = "red", kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with two images: ``dir/a.png`` of 200 × 100 px and ``b.jpg`` of 50 × 80 px."""
    folder = tmp_path / "theirs"
    (folder / "dir").mkdir(parents=True)
    (folder / "dir" / "a.png").write_bytes(picture((200, 100)))
    (folder / "b.jpg").write_bytes(picture((50, 80), "blue", "JPEG"))
    return folder


@pytest.fixture
def convert(source: Path, tmp_path: Path) -> Callable[..., tuple[list[dict], list[dict]]]:
    """Return a function that imports rows, and returns the records and what was left out."""

    def convert(name: str, rows: list[Any], *, kind: str = "jsonl", boxes: Any = None) -> tuple[list[dict], list[dict]]:
        file = source / f"given.{kind}"
        if kind == "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=2)
        else:
            texts = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
            file.write_bytes(b"\n".join(texts) + b"\n")
        job = Import(
            tmp_path / "ours",
            Settings(format=name, files=(str(file),), images=str(source), boxes=boxes, split="train"),
        )
        (tmp_path / "ours").mkdir()
        job.run(lambda state: None)
        for item in read_samples(job.records, tmp_path / "ours" / "images") if job.records.stat().st_size else ():
            assert isinstance(item, Sample), item
        paths = (job.records, job.left_out)  # the second is absent if no row was left out
        texts = [path.read_text().splitlines() if path.exists() else [] for path in paths]
        return tuple([json.loads(line) for line in lines] for lines in texts)

    return convert


A = {"image": "dir/a.png", "width": 200, "height": 100}
B = {"image": "b.jpg", "width": 50, "height": 80}
OURS = {"dataset": "given", "split": "train"}


def test_ms_swift(convert) -> None:
    records, left = convert(
        "ms_swift",
        [
            {  # boxes in pixels
                "messages": [
                    {"role": "system", "content": "You are helpful."},
                    {"role": "user", "content": "<image>Find the <ref-object>."},
                    {"role": "assistant", "content": "<bbox> and <bbox>"},
                ],
                "images": ["dir/a.png"],
                "objects": {"ref": ["sheep"], "bbox": [[10.5, 20, 60, 80], [100, 0, 200, 100]]},
                "level": 3,
            },
            {  # shares of the sides, names beside the boxes, a marked answer
                "messages": [
                    {"role": "user", "content": "<image>How many animals?"},
                    {"role": "assistant", "content": "<ref-object><bbox> <ref-object><bbox> <answer>2</answer>"},
                ],
                "images": ["dir/a.png"],
                "objects": {
                    "ref": ["a dog", "a cat"], "bbox": [[0, 0, 0.5, 0.5], [0.25, 0.1, 1, 1]], "bbox_type": "norm1",
                },
            },
            {  # two images, the second box in the second, absolute path
                "messages": [
                    {"role": "user", "content": "<image>Is it in <image>?"},
                    {"role": "assistant", "content": "Yes"},
                ],
                "images": ["dir/a.png", "b.jpg"],
                "objects": {"ref": [], "bbox": [[0, 0, 9, 9], [1, 2, 40, 70]], "image_id": [0, 1]},
            },
        ],
    )  # fmt: skip
    assert left == []
    both = '{"bbox_2d": [10.5, 20, 60, 80]} and {"bbox_2d": [100, 0, 200, 100]}'
    assert records == [
        {
            "question": "Find the sheep.", "answer": both, **A, **OURS, "completion": both, "level": 3,
            "bboxs": [{"bbox_2d": [10.5, 20, 60, 80]}, {"bbox_2d": [100, 0, 200, 100]}], "system": "You are helpful.",
        },
        {
            "question": "How many animals?", "answer": "2", **A, **OURS,
            "bboxs": [
                {"bbox_2d": [0, 0, 100, 50], "label": "a dog"}, {"bbox_2d": [50, 10, 200, 100], "label": "a cat"},
            ],
            "completion": 'a dog{"bbox_2d": [0, 0, 100, 50]} a cat{"bbox_2d": [50, 10, 200, 100]} <answer>2</answer>',
        },
        {
            "question": "<image>Is it in <image>?", "answer": "Yes", "images": [A, B], **OURS, "completion": "Yes",
            "bboxs": [{"bbox_2d": [0, 0, 9, 9], "image": 1}, {"bbox_2d": [1, 2, 40, 70], "image": 2}],
        },
    ]  # fmt: skip


def talk(question: str = "<image>Q?", answer: str = "A") -> dict[str, Any]:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "images": ["dir/a.png"]}


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"images": ["dir/a.png"]}, "messages", "is missing; expected a list with at least one entry"),
        (talk() | {"images": []}, "images", "is []; expected a list with at least one entry"),
        (talk() | {"images": ["gone.png"]}, "images[0]", "which does not exist or is no regular file"),
        (talk() | {"images": ["../given.jsonl"]}, "images[0]", "expected a path below task.images="),
        (talk() | {"images": ["https://a.b/c.png"]}, "images[0]", "because addresses are not downloaded"),
        (talk() | {"images": ["given.jsonl"]}, "images[0]", "is no image that can be read (cannot identify"),
        (talk("<image><image>Q?"), "question", "has 2 <image> marks; expected one for each image, 1, or none"),
        (talk(answer="<bbox>"), "objects.bbox", "has 0 entries; expected 1, one per <bbox>"),
        (talk("What is in <bbox>?"), "messages", "has <bbox> in the question; expected boxes in the answer only"),
        (talk("<ref-object>?"), "objects.ref", "has too few entries; expected one per <ref-object>"),
        (talk(answer="<|box_start|>(1,2),(3,4)<|box_end|>"), "answer", "expected the answer alone, without <|box_st"),
        ({"messages": talk()["messages"] * 2, "images": ["dir/a.png"]}, "messages", "has 2 questions and 2 answers; "),
        (talk() | {"objects": {"bbox": [[1, 2]]}}, "objects.bbox[0]", "is [1, 2]; expected four numbers"),
        (talk() | {"objects": {"bbox": [[1, 2, 300, 4]]}}, "objects.bbox[0]", "expected a box within the 200 × 100 px"),
        (talk() | {"objects": {"bbox": [[0.1, 0.1, 0.5, 0.5]]}}, "objects.bbox[0]", "not shares of the sides"),
        (
            talk() | {"objects": {"bbox": [[1, 2, 30, 40]], "bbox_type": "norm1"}},
            "objects.bbox[0]", "is [1, 2, 30, 40]; expected numbers from 0 to 1",
        ),
        (talk() | {"objects": {"bbox": [], "bbox_type": "real2"}}, "objects.bbox_type", "expected one of real, norm1"),
        (talk() | {"objects": {"bbox": [[1, 2, 3, 4]], "image_id": [1]}}, "objects.image_id[0]", "is 1; expected 0 to"),
        (b'{"messages": [', "", "not valid JSON"),
        (b'{"messages": "\xff"}', "", "not valid JSON"),
        (b"[1]", "", "expected a JSON object"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_of_ms_swift_is_named_by_line_and_field(convert, source, row, field, reason) -> None:
    records, left = convert("ms_swift", [talk(), row, talk()])
    assert len(records) == 2
    (one,) = left
    assert (one["source"], one["field"]) == (f"{source / 'given.jsonl'}:2", field)
    assert reason in one["reason"]


def test_vlm_r1(convert, source) -> None:
    turns = [
        {"from": "human", "value": "<image>What number of balls?"},
        {"from": "gpt", "value": "<answer> 0 </answer>"},
    ]
    two = [{"from": "human", "value": "<image><image>How many in total?"}, {"from": "gpt", "value": "3"}]
    records, left = convert(
        "vlm_r1",
        [
            {"id": 1, "image": "dir/a.png", "conversations": turns},
            {"id": 2, "image": ["dir/a.png", "b.jpg"], "conversations": two, "accu_reward_method": "default"},
            {"id": 3, "image": 5, "conversations": turns},
            {"id": 4, "image": "dir/a.png", "conversations": turns[::-1]},
            {"id": 5, "image": "dir/a.png", "conversations": [turns[0], {"from": "gpt", "value": ""}]},
        ],
    )
    assert records == [
        {"question": "What number of balls?", "answer": "0", **A, "bboxs": [], **OURS, "id": 1},
        {
            "question": "<image><image>How many in total?", "answer": "3", "images": [A, B], "bboxs": [], **OURS,
            "id": 2, "accu_reward_method": "default",
        },
    ]  # fmt: skip
    assert [(one["source"].rpartition(":")[2], one["field"], one["reason"]) for one in left] == [
        ("3", "image", "is 5; expected a text"),
        ("4", "conversations", "has other turns; expected one of human and one of gpt"),
        ("5", "value", 'is ""; expected a text or a number'),
    ]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_easyr1(convert, kind: str) -> None:
    image = {"bytes": picture((20, 30)), "path": "x.png"} if kind == "parquet" else "dir/a.png"
    rows = [
        {"images": [image], "problem": "<image>Find x.", "answer": "48", "width": 7},
        {"images": [image], "problem": "<image> and <image>?", "answer": "1", "width": 7},
    ]
    records, left = convert("easyr1", rows, kind=kind)
    (record,) = records
    if kind == "parquet":
        name = record["image"]
        assert len(name) == len("0" * 24 + ".png")
        fields = {"image": name, "width": 20, "height": 30}
    else:
        fields = A
    assert record == {"question": "Find x.", "answer": "48", **fields, "bboxs": [], **OURS, "source_width": 7}
    assert left[0]["source"].endswith(f"given.{kind}:2")
    assert left[0]["field"] == "question"


def test_treevgr(convert) -> None:
    image = {"bytes": picture((100, 50)), "path": None}
    rows = [
        {
            "images": [image], "problem": "<image>Which?", "answer": "A",
            "target_instances": [{"bbox": [10, 20, 30, 40], "name": "boat"}],
        },
        {
            "images": [image], "problem": "<image>Which?", "answer": "A",
            "target_instances": [{"bbox": [10, 20, 300, 40], "name": "boat"}],
        },
        {"images": [{"bytes": b"no image", "path": None}], "problem": "Q", "answer": "A", "target_instances": []},
    ]  # fmt: skip
    records, left = convert("treevgr", rows, kind="parquet", boxes="pixels")
    (record,) = records
    assert record["bboxs"] == [{"bbox_2d": [10, 20, 30, 40], "label": "boat"}]
    assert (record["question"], record["answer"], record["width"], record["height"]) == ("Which?", "A", 100, 50)
    assert [(one["field"], one["source"].rpartition(":")[2]) for one in left] == [
        ("target_instances[0].bbox", "2"),
        ("images[0]", "3"),
    ]


@pytest.mark.parametrize(
    ("form", "numbers"),
    [("pixels", [10, 20, 50, 40]), ("xywh", [10, 20, 40, 20]), ("share", [0.1, 0.4, 0.5, 0.8]),
     ("thousandths", [100, 400, 500, 800])],
)  # fmt: skip
def test_boxes_are_what_the_user_says_they_are(convert, form: str, numbers: list[float]) -> None:
    row = {
        "images": [{"bytes": picture((100, 50)), "path": None}], "problem": "Q", "answer": "A",
        "target_instances": [{"bbox": [float(number) for number in numbers], "name": "boat"}],
    }  # fmt: skip
    records, _ = convert("treevgr", [row], kind="parquet", boxes=form)
    assert records[0]["bboxs"] == [{"bbox_2d": [10, 20, 50, 40], "label": "boat"}]


def test_boxes_whose_convention_is_unknown_are_not_guessed(convert) -> None:
    row = {"images": ["dir/a.png"], "problem": "Q", "answer": "A", "target_instances": []}
    with pytest.raises(ConfigError, match=r"task\.boxes is null, expected how target_instances are written"):
        convert("treevgr", [row])


def test_verl(convert) -> None:
    image = {"bytes": picture((40, 60), kind="JPEG"), "path": None}
    turns = [
        {"role": "system", "content": "You may zoom."},
        {"role": "user", "content": "<image>\nWhat colour is the bag?"},
    ]
    rows = [
        {
            "data_source": "vstar", "prompt": turns, "images": [image], "ability": "vl",
            "reward_model": {"ground_truth": "red", "style": "model"}, "extra_info": {"index": "7", "split": "train"},
        },
        {
            "data_source": "vstar", "prompt": turns, "images": [image], "ability": "vl",
            "reward_model": {"ground_truth": None, "style": "model"}, "extra_info": {"index": "8", "split": "train"},
        },
        {
            "data_source": "vstar", "prompt": turns[:1], "images": [image], "ability": "vl",
            "reward_model": {"ground_truth": "red", "style": "model"}, "extra_info": {"index": "9", "split": "train"},
        },
    ]  # fmt: skip
    records, left = convert("verl", rows, kind="parquet")
    (record,) = records
    assert record.pop("image").endswith(".jpg")
    assert record == {
        "question": "What colour is the bag?", "answer": "red", "width": 40, "height": 60, "bboxs": [],
        "dataset": "vstar", "split": "train", "ability": "vl", "extra_info": {"index": "7", "split": "train"},
        "system": "You may zoom.",
    }  # fmt: skip
    assert [(one["field"], one["reason"]) for one in left] == [
        ("ground_truth", "is null; expected a text or a number"),
        ("prompt", "has 0 turns of the user; expected one, after a system's at most"),
    ]
