"""Tests of task=report: what a path stands for, where the page goes, and how refusals read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from grit_lightning.errors import UserError
from grit_lightning.tasks.report import write_report
from support.compared import answers, write_evaluation
from support.pages import completion, run_with


def report(compose_config: Any, *overrides: str) -> Path:
    return write_report(compose_config("task=report", "evaluation.resamples=10", *overrides))


def test_the_page_about_a_run_a_sweep_an_evaluation_and_a_comparison(cli: Any, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    run_with(sweep / "x", {1: [completion("x")]}).path.rename(sweep / "0")
    evaluation = write_evaluation(tmp_path / "a", answers({"v/1": 1.0, "v/2": 0.0}))
    write_evaluation(tmp_path / "b", answers({"v/1": 1.0, "v/2": 1.0}))
    compared = tmp_path / "compared"
    assert cli("task=compare", "runs=[a,b]", f"out={compared}", cwd=tmp_path).returncode == 0
    written = (compared / "report.html").read_bytes()
    for folder, title in (
        (sweep / "0", "a run of grit_lightning"),
        (sweep, "a sweep of grit_lightning: 1 jobs"),
        (evaluation, "an evaluation of grit_lightning"),
        (compared, "a comparison of grit_lightning"),
    ):
        done = cli("task=report", f"run={folder}", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{folder / 'report.html'} (0." in done.stdout
        assert title in (folder / "report.html").read_text()
    assert (compared / "report.html").read_bytes() == written, "task=compare writes the same page"


def test_the_page_goes_where_out_says(compose_config: Any, tmp_path: Path) -> None:
    evaluation = write_evaluation(tmp_path / "a", answers({"v/1": 1.0, "v/2": 0.0}))
    other = write_evaluation(tmp_path / "b", answers({"v/1": 1.0, "v/2": 1.0}))
    page = report(compose_config, f"runs=[{evaluation},{other}]", f"out={tmp_path / 'page.html'}")
    assert page == tmp_path / "page.html"
    assert "a comparison of grit_lightning" in page.read_text()
    predictions = evaluation / "predictions.jsonl"
    assert report(compose_config, f"run={predictions}", f"out={tmp_path / 'more'}") == tmp_path / "more/report.html"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "expected what the page is about: run=RUN, or 'runs=[A,B]' for a comparison"),
        (["run=a", "runs=[a,b]"], "expected what the page is about"),
        (["runs=[a]"], "runs has 1 entry, expected at least two"),
        (["run=nowhere"], "does not exist; expected a run, the folder of an evaluation, or a file of predictions"),
        (["run=empty"], "is neither a run"),
        (["run=broken"], "comparison.json"),
    ],
)
def test_what_is_no_run_is_refused(
    compose_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "comparison.json").write_text('{"runs": [')
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        report(compose_config, *overrides)


def test_a_page_that_cannot_be_written_is_an_error_with_its_path(compose_config: Any, tmp_path: Path) -> None:
    run = run_with(tmp_path, {1: [completion("x")]})
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/report\.html cannot be written|file.* cannot be written: .*out=…"):
        report(compose_config, f"run={run.path}", f"out={tmp_path / 'file' / 'below'}")


def test_a_gallery_in_markdown_has_its_pictures_beside_it(compose_config: Any, tmp_path: Path) -> None:
    from PIL import Image

    from support.predicted import record

    Image.new("RGB", (100, 100), "green").save(tmp_path / "x.png")

    def answered(right: set[int]) -> str:
        nasty = "<script>alert(1)</script> ![x](http://x) \x1b[2J"
        box = 'I see {"bbox_2d": [1, 2, 30, 40]}'
        ones = [record(f"{box} {nasty}\n<answer> 2 </answer>", sample_id=f"f/{index}") for index in range(20)]
        here = {"image": str(tmp_path / "x.png")}
        scored = [one | here | {"scores": {"judge": float(index in right)}} for index, one in enumerate(ones)]
        return "".join(json.dumps(one) + "\n" for one in scored)

    run = run_with(tmp_path, {1: [completion("x")]})
    run.evaluation.mkdir()
    run.before_file.write_text(answered({*range(0, 10)}))
    run.after_file.write_text(answered({*range(5, 17)}))
    page = report(compose_config, f"run={run.path}", f"out={tmp_path / 'docs' / 'gallery.md'}")
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Became right: 7", "## Became wrong: 5", "## Stayed wrong: 3", "## Stayed right: 5",
    ]  # fmt: skip
    assert "accuracy 0.500 before, 0.600 after" in " ".join(text.split())
    pictures = sorted((tmp_path / "docs" / "gallery").iterdir())
    assert [f"gallery/{file.name}" for file in pictures] == re.findall(r"\]\((gallery/\d\d\.jpg)\)", text)
    assert len(pictures) == 12
    assert all(line.startswith("    ") for line in text.splitlines() if "script" in line)
    assert "\x1b" not in text
    again = report(compose_config, f"run={run.path}", f"out={tmp_path / 'again' / 'gallery.md'}")
    assert again.read_bytes() == page.read_bytes()
    with pytest.raises(UserError, match="holds no answers before and after training"):
        other = run_with(tmp_path / "other", {1: [completion("x")]})
        report(compose_config, f"run={other.path}", f"out={tmp_path / 'x.md'}")
