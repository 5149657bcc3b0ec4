"""Tests of ``task=compare`` on evaluations written by hand."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from grit_lightning.app import main as app
from grit_lightning.errors import UserError
from grit_lightning.evaluation.predictions import write_predictions
from grit_lightning.model.backbones.prompts import known_prompts
from grit_lightning.system.paths import conf_dir
from grit_lightning.tasks.compare import Compared, compare_evaluations
from support.chat_server import ChatServer
from support.compared import SETTINGS, answer, answers, write_evaluation

TINY = conf_dir().parent / "src" / "grit_lightning" / "assets" / "tiny"
FILES = ["comparison.csv", "comparison.json", "comparison.md", "comparison.png", "flips.jsonl", "report.html"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test, which holds the evaluations ``a`` and ``b``."""
    first = answers({"v/1": 1.0, "v/2": 0.0, "v/3": 0.0}) + answers({"t/1": 1.0, "t/2": 1.0}, dataset="tallyqa")
    second = answers({"v/1": 0.0, "v/2": 1.0, "v/3": 1.0}) + answers({"t/1": 1.0, "t/2": 1.0}, dataset="tallyqa")
    version = known_prompts()["plain"]
    write_evaluation(tmp_path / "a", first)
    plain = [one | {"prompt_version": version} for one in second]
    write_evaluation(tmp_path / "b", plain, {**SETTINGS, "prompt": {"version": version}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_task(compose_config: Any, *overrides: str) -> Compared:
    cfg = compose_config("task=compare", "evaluation.resamples=50", *overrides)
    return compare_evaluations(cfg, **{key: value for key, value in cfg.task.items() if key[0] != "_"})


def test_two_evaluations_are_compared_on_screen_and_in_files(cli: Any, place: Path, listing: Any) -> None:
    before = {name: listing(place / name) for name in "ab"}
    done = cli("task=compare", "runs=[a,b]", "task.flips=2", "name=mine", cwd=place)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (folder,) = (place / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_mine", folder.name)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert {name: listing(place / name) for name in "ab"} == before, "what is compared is not touched"
    assert done.stdout.startswith(
        f"a: {place}/a/predictions.jsonl\n"
        "  tiny, prompt grounded, greedy, up to 112 tokens, judged by exact match, 5 samples\n"
        f"b: {place}/b/predictions.jsonl\n"
        "  tiny, prompt plain, greedy, up to 112 tokens, judged by exact match, 5 samples\n"
    )
    assert re.search(r"^accuracy +0\.600 \(.+\) +0\.800 \(.+\) +\+0\.200 \(.+\)$", done.stdout, re.M)
    assert "\nb against a: right → wrong 1, wrong → right 2, of 5 samples in both\n" in done.stdout
    assert "\nThe first 2 of 3 samples that flipped, with the reference answer in brackets:\n  v/1: " in done.stdout
    assert "v/3" not in done.stdout
    assert done.stdout.endswith(f"\nwritten to {folder}\n")
    page = (folder / "comparison.md").read_text()
    assert page.startswith("# Evaluations compared\n")
    assert re.search(r"^\| accuracy \| 0\.600 \(.+\) \| 0\.800 \(.+\) \| \+0\.200 \(.+\) \|$", page, re.M)
    with (folder / "comparison.csv").open() as file:
        (line,) = [
            line
            for line in csv.DictReader(file)
            if (line["metric"], line["dataset"], line["run"]) == ("accuracy", "vsr", "b")
        ]
    assert [line[key] for key in ("samples", "pairs")] == ["3", "3"]
    assert [float(line[key]) for key in ("value", "difference")] == pytest.approx([2 / 3, 1 / 3])
    flips = [json.loads(line) for line in (folder / "flips.jsonl").read_text().splitlines()]
    assert [flip["sample_id"] for flip in flips] == ["v/1", "v/2", "v/3"], "all of them are written"
    with Image.open(folder / "comparison.png") as image:
        assert image.format == "PNG"


def test_unreadable_lines_and_different_settings_cause_warnings(cli: Any, place: Path) -> None:
    with (place / "b" / "predictions.jsonl").open("a") as file:
        file.write(json.dumps(answer("v/1", 1.0)) + "\n" + json.dumps(answer("v/9", 1.0))[:-20])
    sampled = [answer(f"v/{line}", score, index=index) for line in (1, 2) for index, score in enumerate([1.0, 0, 1.0])]
    write_predictions(place / "c.jsonl", [one | {"judge": "gpt-4o, prompt 0a1b"} for one in sampled])
    done = cli("task=compare", "runs=[a,b,c.jsonl]", "out=found", cwd=place)
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("WARNING: ") for line in done.stderr.splitlines()]
    file = place / "b" / "predictions.jsonl"
    assert lines[0] == f"left out: {file}:6: completion 0 of sample v/1 appears twice; the first is used"
    assert lines[1].startswith(f"left out: {file}:7: not valid JSON (")
    assert lines[2:] == [
        "c was judged by gpt-4o, prompt 0a1b, a by exact match: accuracies may differ because of the judge",
        "c was decoded differently (3 completions per sample) than a (decoding not recorded)",
        "different samples: 0 only in c, 3 only in a; differences are over the samples in both, "
        "means over all of each run",
    ]
    page = (place / "found" / "comparison.md").read_text()
    assert "Not quite comparable:\n\n- c was judged by gpt-4o" in page
    assert "pass@k" in done.stdout


def test_runs_are_compared_by_their_newest_evaluations(compose_config: Any, place: Path, capsys: Any) -> None:
    for name, score in (("one", 0.0), ("two", 1.0)):
        (place / name).mkdir()
        (place / name / "manifest.json").write_text("{}")
        write_evaluation(place / name / "eval" / "old", answers({"v/1": 0.5}))
        os.utime(place / name / "eval" / "old" / "metrics.json", (1, 1))
        write_evaluation(place / name / "eval" / "new", answers({"v/1": score}))
    result = run_task(compose_config, "runs=[one,two]", "out=found")
    assert result.folder == place / "found"
    assert [column.name for column in result.comparison.columns] == ["one", "two"]
    assert result.comparison.pairs[0].differences["overall"]["accuracy"].mean == 1.0
    assert f"two: {place}/two/eval/new/predictions.jsonl\n" in capsys.readouterr().out


def test_a_published_figure_is_shown_where_the_protocol_is_the_same(
    compose_config: Any, place: Path, capsys: Any
) -> None:
    protocol = {
        **SETTINGS,
        "judge": "gpt-4o, prompt 0a1b",
        "weights": {"checkpoint": "Qwen/Qwen2.5-VL-3B-Instruct", "run": "0a1b", "step": 200},
    }
    scores = {f"vsr_val/{line}": float(line % 2) for line in range(1, 9)}
    judged = answers(scores, judge="gpt-4o, prompt 0a1b")
    write_evaluation(place / "trained", judged, protocol)
    write_evaluation(place / "cut", judged[1:], protocol)
    run_task(compose_config, "runs=[cut,trained]", "out=found")
    (line, other) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("published")]
    assert other.startswith("published: vsr GRIT's script's IoU 0.325")
    assert re.fullmatch(r"published: vsr accuracy 0\.729, .+ \(arXiv 2505\.15879; .+\); trained: 0\.500 \(.+\)", line)
    assert "published: vsr accuracy 0.729" in (place / "found" / "comparison.md").read_text()


def test_an_evaluation_by_a_published_protocol_ends_with_the_figure(cli: Any, shapes: Path, tmp_path: Path) -> None:
    """The bundled model stands in for the published model, and bundled samples for its data set, under their names."""
    checkpoint = shutil.copytree(TINY, tmp_path / "Qwen2.5-VL-3B-Instruct")
    (file,) = shapes.glob("shapes_vsr_train*.jsonl")
    (shapes / "vsr_val.jsonl").write_text(file.read_text())
    data = (f"data.root={shapes}", "data.val=null", "data.val=[{file: vsr_val.jsonl, images: images}]")
    server = ChatServer()
    try:
        judge = ("judge=local", "judge.model=gpt-4o", f"judge.endpoint.url={server.url}", "judge.cache=null")
        command = ("task=evaluate", "model=pretrained", f"model.checkpoint={checkpoint}", "prompt=plain", *data)
        done = cli(*command, *judge, "out=a", cwd=tmp_path, NO_PROXY="127.0.0.1")
        assert done.returncode == 0, done.stderr
        assert "\npublished: vsr accuracy, binarised 0.663, " in done.stdout
        done = cli("task=evaluate", "run=a", cwd=tmp_path)
        assert "\npublished: vsr accuracy, binarised 0.663, " in done.stdout
        done = cli(*command, "out=b", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "published" not in done.stdout.replace(str(tmp_path), ""), "exact match is another judge"
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), r"^runs has 0 entries, expected at least two to compare: 'runs=\[A,B\]'$"),
        (("runs=[a]",), r"^runs has 1 entry, expected at least two to compare: 'runs=\[A,B\]'$"),
        (
            ("runs=[a,nowhere]",),
            r"^\S+/nowhere: does not exist; expected a run, the folder of an evaluation, or a file",
        ),
        (("runs=[a,empty]",), r"^\S+/empty: is neither a run \(no manifest.json\) nor an evaluation \(no evaluation\."),
        (("runs=[a,bare]",), r"^\S+/bare: this run has not been evaluated yet: task=evaluate run=\S+/bare$"),
        (
            ("runs=[a,torn.jsonl]",),
            r"^\S+/torn\.jsonl: holds no prediction that can be used: \S+/torn\.jsonl:1: not va",
        ),
        (("runs=[a,other.jsonl]",), r"^\S+/other\.jsonl: shares no sample with \S+/a/predictions\.jsonl, so there is "),
        (("runs=[a,b]", "task.flips=-1"), r"^task\.flips is -1, expected a whole number of at least 0$"),
        (("runs=[a,b]", "task.flips=x"), r"^task\.flips is 'x', expected int$"),
        (("runs=[a,b]", "out=a"), r"^out=\S+/a is taken: choose another out=…$"),
        (("runs=[a,b]", "out=torn.jsonl/x"), r"^out=\S+/x cannot be made: \S+/torn\.jsonl is in the way$"),
        (("runs=a",), r"^runs=a: expected a list, 'runs=\[a\]'$"),
    ],
)
def test_an_invalid_comparison_is_refused_and_changes_nothing(
    compose_config: Any, place: Path, listing: Any, overrides: tuple[str, ...], message: str
) -> None:
    (place / "empty").mkdir()
    (place / "bare").mkdir()
    (place / "bare" / "manifest.json").write_text("{}")
    (place / "torn.jsonl").write_text('{"sample_id"')
    write_predictions(place / "other.jsonl", answers({"w/1": 1.0}))
    before = listing(place)
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as error:
        run_task(compose_config, *overrides)
    line = app.one_line(error.value)
    assert re.search(message, line), line
    assert listing(place) == before


def test_an_error_is_one_line(cli: Any, place: Path) -> None:
    done = cli("task=compare", "runs=[a]", cwd=place)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: runs has 1 entry, expected at least two to compare: 'runs=[A,B]'\n"
    assert not (place / "runs").exists()


def test_a_read_only_output_folder_is_refused(compose_config: Any, place: Path, monkeypatch: Any) -> None:
    # Not by its mode: nothing would be read-only to root.
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (place, os.W_OK))
    with pytest.raises(UserError, match=r"/found cannot be written: \S+ is read-only; give another folder as out=…$"):
        run_task(compose_config, "runs=[a,b]", "out=found")
