"""Tests of a run on data that are not all decoded at the start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grit_lightning.data.shapes.files import draw_dataset

OPTIONS = (
    "threads=1", "trainer.accelerator=cpu", "data.val=null", "data.prompts_per_step=1", "rollout.num_generations=2",
    "rollout.max_new_tokens=4", "callbacks.checkpoint.last_every_n_steps=1", "logger=csv",
)  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six samples, each about an image of its own."""
    (tmp_path / "images").mkdir()
    drawn = draw_dataset(count=6, seed=3, split="train")
    lines = []
    for name, image in list(drawn.images.items())[:6]:
        image.save(tmp_path / "images" / name)
        record = {"question": "Is it?", "answer": "no", "image": name, "width": image.width, "height": image.height}
        lines.append(json.dumps(record))
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    return tmp_path / "mine.jsonl"


def steps(run: Path) -> list[str]:
    return sorted(file.stem for file in (run / "rollouts").glob("*.jsonl"))


def test_bad_pixels_end_the_run_with_their_line_and_a_resume_goes_on(cli, data: Path, tmp_path: Path) -> None:
    whole = cli(*OPTIONS, f"data.train={data}", "data.check=headers", "trainer.max_steps=6", "out=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    order = [json.loads((tmp_path / "whole" / "rollouts" / f"{name}.jsonl").read_text().splitlines()[0])["source"]
             for name in steps(tmp_path / "whole")]  # fmt: skip
    line = int(order[4].rpartition(":")[2])  # of the fifth step
    image = data.parent / "images" / json.loads(data.read_text().splitlines()[line - 1])["image"]
    good = image.read_bytes()
    image.write_bytes(good[: len(good) // 2])
    done = cli(*OPTIONS, f"data.train={data}", "data.check=headers", "trainer.max_steps=6", "out=run", cwd=tmp_path)
    assert done.returncode == 1
    assert f"error: {data}:{line}: image {image} cannot be decoded (" in done.stderr
    assert "Traceback" not in done.stderr
    assert 3 <= len(steps(tmp_path / "run")) <= 4
    image.write_bytes(good)
    done = cli("resume=run", "allow_changed=[data]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in steps(tmp_path / "whole"):
        for run in ("whole", "run"):
            assert (tmp_path / run / "rollouts" / f"{name}.jsonl").exists()
        whole_lines, lines = ((tmp_path / run / "rollouts" / f"{name}.jsonl").read_text() for run in ("whole", "run"))
        assert lines == whole_lines


def test_the_wait_for_prompts_is_logged_and_the_decoded_images_are_remembered(
    cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRIT_LIGHTNING_CACHE", str(tmp_path / "cache"))
    done = cli(*OPTIONS, f"data.train={data}", "data.check=all", "trainer.max_steps=2", "out=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (table,) = (tmp_path / "run" / "metrics").glob("version_0/metrics.csv")
    header, *rows = table.read_text().splitlines()
    column = header.split(",").index("time/data")
    assert len(rows) == 2
    assert all(0 <= float(row.split(",")[column]) < 60 for row in rows)
    assert (tmp_path / "cache" / "checked_images.sqlite").is_file()
