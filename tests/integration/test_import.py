"""Test of ``task=import``: every layout's data are checked, trained on and answered like one's own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from grit_lightning.data.importing.formats import FORMATS
from grit_lightning.data.shapes.files import draw_dataset
from support.commands import succeeded

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

FAST = ("threads=1", "trainer.accelerator=cpu", "trainer.max_steps=2", "rollout.max_new_tokens=16")
PARQUET = ("treevgr", "verl")


def row(name: str, index: int, content: bytes) -> dict[str, Any]:
    """Return a row of a layout about an image, of which the file ``{index}.png`` lies beside."""
    question, image = "<image>How many circles?", {"bytes": content, "path": f"{index}.png"}
    return {
        "ms_swift": {
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "<ref-object><bbox>"}],
            "images": [f"{index}.png"],
            "objects": {"ref": ["a circle"], "bbox": [[1, 2, 30, 40]]},
        },
        "vlm_r1": {
            "image": f"{index}.png",
            "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": "<answer>2</answer>"}],
        },
        "easyr1": {"images": [f"{index}.png"], "problem": question, "answer": "2"},
        "treevgr": {
            "images": [image], "problem": question, "answer": "2",
            "target_instances": [{"bbox": [1, 2, 30, 40], "name": "circle"}],
        },
        "verl": {
            "data_source": "shapes", "prompt": [{"role": "user", "content": question}], "images": [image],
            "reward_model": {"ground_truth": "2"},
        },
    }[name]  # fmt: skip


@pytest.fixture(scope="module")
def imported(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of each layout, imported into a subfolder of its name."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "theirs").mkdir()
    contents = []
    for index, image in enumerate(list(draw_dataset(count=2, seed=3, split="train").images.values())[:2]):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        contents.append(buffer.getvalue())
        (folder / "theirs" / f"{index}.png").write_bytes(contents[-1])
    for name in FORMATS:
        given = [row(name, index, content) for index, content in enumerate(contents)]
        file = folder / "theirs" / f"{name}.{'parquet' if name in PARQUET else 'jsonl'}"
        if name in PARQUET:
            parquet.write_table(pyarrow.Table.from_pylist(given), file)
        else:
            file.write_text("".join(json.dumps(one) + "\n" for one in given))
        boxes = ("task.boxes=pixels",) if name == "treevgr" else ()
        options = (f"task.format={name}", f"task.files=[{file}]", f"task.split={name}", *boxes, "out=ours")
        shown = succeeded(cli("task=import", *options, cwd=folder))
        assert "2 rows imported, 0 left out" in shown
        assert f"written to {folder / 'ours' / name}.jsonl; use it with data.train=" in shown
    return folder


def test_imported_data_have_no_problem_and_are_trained_on_and_answered(cli, imported: Path) -> None:
    shown = succeeded(cli("task=validate", "data.train=ours", "data.val=null", cwd=imported))
    assert "\n0 problems" in shown
    assert [line.split()[:2] for line in shown.splitlines() if ".jsonl " in line] == [
        [f"{name}.jsonl", "2"] for name in sorted(FORMATS)
    ]
    data = ("data.train=ours", "data.val=ours", "data.prompts_per_step=5", "rollout.num_generations=2")
    succeeded(cli(*FAST, *data, "evaluation.during_training.before_and_after=0", "out=run", cwd=imported))
    assert len(list((imported / "run" / "rollouts").glob("*.jsonl"))) == 2
    shown = succeeded(cli("task=evaluate", "run=run", "data.val=ours", "threads=1", cwd=imported))
    assert "accuracy" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("task.format=coco",), "task.format is coco; expected one of ms_swift, vlm_r1, easyr1, treevgr, verl"),
        (("task.format=easyr1", "task.boxes=cm"), "task.boxes is cm; expected one of pixels, xywh, share, thousandths"),
        (("task.format=easyr1", "task.split=easyr1"), "easyr1.jsonl exists: the import is done; give another out=…"),
        (("task.format=verl", "task.split=other"), "no row could be imported: "),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(cli, imported: Path, options, message: str) -> None:
    done = cli("task=import", *options, "task.files=[theirs/easyr1.jsonl]", "out=ours", cwd=imported)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_import_needs_a_folder(cli, imported: Path) -> None:
    done = cli("task=import", "task.format=easyr1", "task.files=[theirs/easyr1.jsonl]", cwd=imported)
    assert done.returncode == 1
    assert "error: task=import writes a data set: give its folder as out=DIR" in done.stderr
