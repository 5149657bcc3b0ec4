"""Tests of invalid data and configs: refused before the first step with one line, without writing a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from grit_lightning.app import main as app
from grit_lightning.errors import UserError
from grit_lightning.tasks.train import train_policy

COUNTING = "shapes_tallyqa_train_10.jsonl"
LINE = 3

Spoil = Callable[[Path], None]


def edit(change: Callable[[bytes], bytes]) -> Spoil:
    """Return a function that changes one line of the counting samples."""

    def spoil(folder: Path) -> None:
        lines = (folder / COUNTING).read_bytes().splitlines()
        lines[LINE - 1] = change(lines[LINE - 1])
        (folder / COUNTING).write_bytes(b"\n".join(lines))

    return spoil


def fields(**values: Any) -> Spoil:
    return edit(lambda line: json.dumps(json.loads(line) | values).encode())


def the_image(folder: Path) -> Path:
    return folder / "images" / json.loads((folder / COUNTING).read_text().splitlines()[LINE - 1])["image"]


def cut_image(folder: Path) -> None:
    path = the_image(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def narrow_image(folder: Path) -> None:
    fields(width=1, height=5000, bboxs=[])(folder)
    Image.new("RGB", (1, 5000)).save(the_image(folder))


AT = rf"^\S+/{COUNTING}:{LINE}: "
DATA = {
    "missing image": (lambda folder: the_image(folder).unlink(), AT + r"image \S+\.png does not exist$"),
    "truncated image": (cut_image, AT + r"image \S+\.png cannot be decoded \(.+\)$"),
    "narrow image": (narrow_image, AT + r"image \S+\.png is 1 × 5000 px; expected an aspect ratio of at most 200$"),
    "other size": (fields(width=9, bboxs=[]), AT + r"image \S+ is \d+ × \d+ px, but fields 'width' and 'height' "),
    "wrong type": (fields(question=7), AT + r"field 'question' is a number; expected a non-empty string$"),
    "no answer": (fields(answer=None), AT + r"field 'answer' is null; expected a non-empty string or a number$"),
    "box outside": (
        fields(bboxs=[[0, 0, 9999, 10]]),
        AT + r"field 'bboxs\[0\]' is \[0, 0, 9999, 10\]; expected a box within the \d+ × \d+ px image$",
    ),
    "control token": (
        fields(question="<|image_pad|>?"),
        AT + r"field 'question' contains the model's control token <\|image_pad\|>$",
    ),
    "torn line": (edit(lambda line: line[:40]), AT + r"not valid JSON at column \d+ \(.+\); is the line cut off\?$"),
    "not UTF-8": (edit(lambda line: b'{"question": "\xff"}'), AT + r"not UTF-8 at byte 15 of the line \(0xff\)$"),
    "empty file": (
        lambda folder: (folder / COUNTING).write_bytes(b""),
        rf"^\S+/{COUNTING}: the file holds no samples; expected one JSON object per line$",
    ),
}

CONFIG = {
    "data.root=nowhere": r"^nowhere: the folder of data\.root does not exist$",
    "data.max_prompt_tokens=10": (
        rf"^\S+/{COUNTING}:1: the prompt of sample \S+ has \d+ tokens; expected at most data\.max_prompt_tokens = 10 "
        r"\(and 19 more problems: task=validate lists them all\)$"
    ),
    "data.train=[{file: a.jsonl}]": r"^data\.train\[0\] is .+; expected a JSONL file, a folder, or {file: FILE, .+}$",
    "data.val=[{shapes: 0}]": r"^data\.val\[0\]\.shapes is 0, expected a whole number of at least 1$",
    "rollout.num_generations=1": r"^rollout\.num_generations is 1, expected at least 2: a completion's advantage ",
    "+data.colour=red": r"^data\.colour is unknown: \S+ takes root, train, ",
    "trainer.max_steps=many": r"^trainer\.max_steps is 'many', expected int$",
    "trainer.max_steps=-1": r"^trainer\.max_steps is -1, but this schedule needs a last step: choose ",
    "trainer.max_steps=0": r"^trainer\.max_steps is 0, expected at least 1, or -1 ",
    "trainer.precision=16-mixed": r"^trainer\.precision is '16-mixed', expected 32-true or bf16-mixed$",
    "scheduler.num_warmup_steps=-5": r"^scheduler\.num_warmup_steps is -5, expected at least 0$",
    "optimizer.lr=-1": r"^optimizer: grit_lightning\.training\.adamw refuses its options: Invalid learning rate: -1$",
    "optimizer.betas=[0.9]": r"^optimizer: grit_lightning\.training\.adamw refuses its options: .+",
    "module.max_grad_norm=0": r"^module\.max_grad_norm is 0, expected a number above 0 ",
    "module.logits_chunk=0": r"^module\.logits_chunk is 0, expected a whole number of at least 1$",
    "module.max_tokens_per_pass=-5": r"^module\.max_tokens_per_pass is -5, expected ",
    "callbacks.progress.line_every_n_steps=0": r"^callbacks\.progress\.line_every_n_steps is 0, expected at least 1$",
    "rollout.stop=''": r"^rollout\.stop is empty, expected the text that ends a completion",
    "prompt.template='What?'": r"^prompt\.template lacks \{question\}, so the model would never see the question$",
    "model.attn_implementation=eager": r"^model\.attn_implementation is 'eager', expected auto \| flash$",
    "model.checkpoint=/no/such/folder": r"^/no/such/folder: no such folder, and not a hub id of the form",
    "trainer.accelerator=tpu": r"^Error in call to target 'lightning\..+Trainer': .+",
    "threads=0": r"^threads is 0, expected at least 1, or null$",
    "seed=-1": r"^seed is -1, expected 0 to 4294967295$",
    "out=a_file/run": r"^out=\S+/a_file/run cannot be the run folder: (Not a directory|File exists) \(\S+\)\.$",
    "out=a_file": r"^out=\S+/a_file cannot be the run folder: \S+/a_file is in the way\.$",
    "out=a_run": r"^\S+/a_run already holds a run: continue it with resume=\S+/a_run or choose another out=….$",
    "resume=nowhere": r"^nowhere is not a folder\.$",
    "resume=mine": r"^mine is not a run folder: it has no manifest\.json\.$",
    "resume=a_run": r"^a_run: its composed\.yaml is missing, so the run's config is unknown\.$",
}

COMPOSITION = {
    "runs=A": r"^runs=A: expected a list, 'runs=\[A\]'$",
    "colour=red": r"^colour is unknown: --cfg job lists the keys; .*\+colour=…$",
    "data.colour=red": r"^data\.colour is unknown: --cfg job lists the keys; .*\+data\.colour=…$",
    "objective=ppo": r"^objective=ppo is unknown: the options of objective are dapo, dr_grpo, grpo, gspo$",
    "+experiment=mine": r"^experiment=mine is unknown: the options of experiment are ",
    "seed=many": r"^seed=many: Value 'many' of type 'str' could not be converted to Integer$",
    "trainer.max_steps=[1": r"^trainer\.max_steps=\[1 cannot be read as an override: ",
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning leaves it behind
    monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: pytest.fail("training began"))
    (tmp_path / "a_file").write_text("kept")
    (tmp_path / "a_run").mkdir()
    (tmp_path / "a_run" / "manifest.json").write_text("{}")


@pytest.fixture
def refusal(compose_config, tmp_path: Path, listing) -> Callable[..., str]:
    """Return a function that gives the line with which a training is refused; it checks that no file changes."""

    def line(*overrides: str) -> str:
        before = listing(tmp_path)
        with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as error:
            train_policy(compose_config(*overrides), report=False)
        assert listing(tmp_path) == before
        return app.one_line(error.value)

    return line


@pytest.mark.parametrize("what", DATA)
def test_bad_data_is_named_by_file_line_and_field(refusal, shapes: Path, what: str) -> None:
    spoil, expected = DATA[what]
    spoil(shapes)
    assert_matches(expected, refusal("data.root=mine"))


@pytest.mark.parametrize("override", CONFIG)
def test_a_bad_value_is_named_by_its_key(refusal, shapes: Path, override: str) -> None:
    assert_matches(CONFIG[override], refusal(*dict.fromkeys(("data.root=mine", override))))


@pytest.mark.parametrize("override", COMPOSITION)
def test_an_override_that_does_not_compose_is_named(refusal, override: str) -> None:
    assert_matches(COMPOSITION[override], refusal(override))


def assert_matches(pattern: str, line: str) -> None:
    assert "\n" not in line
    assert re.search(pattern, line), line
