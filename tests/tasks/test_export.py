"""Tests of ``task=export``: the folder holds the trained weights, and plain transformers loads it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from transformers.utils import is_torchvision_available

from grit_lightning.tasks import model_card
from support.hub_server import SIGNATURE, HubServer, Repository, account
from support.image_processors import without_torchvision
from support.released import MAKERS, TINY, internvl

FAST = ("+debug=fast", "threads=1", "trainer.accelerator=cpu", "~callbacks.demonstration", "reward=digits")
WEIGHTS = "policy.model."


@pytest.fixture(scope="module")
def work(cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    done = cli(*FAST, "optimizer.lr=0.05", "out=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("dtype", "exact"), [("float32", True), ("float16", False)])
def test_the_exported_folder_holds_the_trained_weights(cli, work: Path, dtype: str, exact: bool) -> None:
    done = cli("task=export", "run=run", f"out={dtype}", f"task.dtype={dtype}", cwd=work)
    assert done.returncode == 0, done.stderr
    assert f"written to {work / dtype}" in done.stdout
    model = AutoModelForImageTextToText.from_pretrained(work / dtype, dtype=torch.float32)
    state = torch.load(work / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        learned = state[WEIGHTS + name]
        assert torch.equal(value, learned if exact else learned.half().float()), name
    tokenizer = AutoTokenizer.from_pretrained(work / dtype)
    ends = torch.tensor(model.generation_config.eos_token_id).flatten()
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ends
    assert (work / dtype / "preprocessor_config.json").is_file()
    (work / "file").touch()  # readable by whoever may read other files
    assert (work / dtype / "model.safetensors").stat().st_mode == (work / "file").stat().st_mode
    card = (work / dtype / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "| rewards, by weight | digit_share 1 |" in card
    assert "for 2 steps" in card


def test_the_stored_type_is_in_every_config_and_the_generation_config_is_the_checkpoints(cli, work: Path) -> None:
    source = work / "source"
    shutil.copytree(TINY, source)
    given = b'{"eos_token_id": [1],\n   "repetition_penalty": 1.05}'
    (source / "generation_config.json").write_bytes(given)
    done = cli(*FAST, f"model.checkpoint={source}", "model.dtype=bfloat16", "trainer.max_steps=1", "out=bf", cwd=work)
    assert done.returncode == 0, done.stderr
    done = cli("task=export", "run=bf", "out=narrow", "task.dtype=bfloat16", cwd=work)
    assert done.returncode == 0, done.stderr
    config = json.loads((work / "narrow" / "config.json").read_text())
    assert {part["dtype"] for part in (config, config["text_config"], config["vision_config"])} == {"bfloat16"}
    assert (work / "narrow" / "generation_config.json").read_bytes() == given


def test_an_exported_folder_answers_as_the_run_does(cli, work: Path) -> None:
    assert cli("task=export", "run=run", "out=again", cwd=work).returncode == 0
    evaluate = ("task=evaluate", "data.val=[{shapes: 2}]", "rollout.max_new_tokens=16", "threads=1")
    exported = ("model=pretrained", "model.checkpoint=again", "model.max_pixels=100352")
    assert cli(*evaluate, *exported, "out=a", cwd=work).returncode == 0
    assert cli(*evaluate, "run=run", "name=b", cwd=work).returncode == 0
    assert (work / "a" / "predictions.jsonl").read_text().count('"token_ids"') == 4
    texts = [
        [line.split('"token_ids"')[1] for line in (work / folder / "predictions.jsonl").read_text().splitlines()]
        for folder in ("a", "run/eval/b")
    ]
    assert texts[0] == texts[1]


def test_the_model_card_lists_evaluations(cli, work: Path) -> None:
    evaluate = ("task=evaluate", "data.val=[{shapes: 2}]", "rollout.max_new_tokens=16", "threads=1", "name=mine")
    assert cli(*evaluate, "run=run", cwd=work).returncode == 0
    assert cli("task=export", "run=run", "out=measured", cwd=work).returncode == 0
    card = (work / "measured" / "README.md").read_text()
    header, row = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in card.splitlines()
        if line.startswith(("|  | accuracy", "| mine ("))
    )
    metrics = json.loads((work / "run" / "eval" / "mine" / "metrics.json").read_text())["metrics"]["overall"]
    expected = {"accuracy": "accuracy", "grounding IoU": "grounding_iou", "grounded format": "grounded_format"}
    for title, key in expected.items():
        assert row[header.index(title)] == f"{metrics[key]:.3f}"
    assert row[header.index("samples")] == "4"


def test_the_snippet_of_the_model_card_runs(cli, work: Path, monkeypatch, capsys) -> None:
    assert cli("task=export", "run=run", "out=asked", cwd=work).returncode == 0
    (snippet,) = re.findall(r"```python\n(.+?)```", (work / "asked" / "README.md").read_text(), re.DOTALL)
    Image.effect_noise((200, 130), 100).save(work / "asked" / "picture.png")
    monkeypatch.chdir(work / "asked")
    without_torchvision(monkeypatch)
    names: dict[str, Any] = {}
    exec(snippet, names)
    said = capsys.readouterr().out
    assert (
        said == names["processor"].tokenizer.decode(names["output"][0, names["inputs"]["input_ids"].shape[1] :]) + "\n"
    )
    assert said != "\n"


@pytest.mark.skipif(not is_torchvision_available(), reason="AutoProcessor needs torchvision")
@pytest.mark.parametrize("family", ["qwen2_5_vl", *MAKERS])
def test_an_export_loads_with_auto_processor(cli, work: Path, tmp_path: Path, family: str) -> None:
    source = TINY if family == "qwen2_5_vl" else MAKERS[family](tmp_path / "source")
    model = ("model=pretrained", f"model.checkpoint={source}", "model.max_pixels=100352")
    assert cli(*FAST, *model, "trainer.max_steps=1", f"out={tmp_path}/run", cwd=work).returncode == 0
    assert cli("task=export", f"run={tmp_path}/run", f"out={tmp_path}/new", cwd=work).returncode == 0
    assert AutoProcessor.from_pretrained(tmp_path / "new").image_processor is not None


def test_an_export_has_the_files_that_auto_processor_reads(cli, work: Path, tmp_path: Path) -> None:
    source = internvl(tmp_path / "source")
    (source / "processor_config.json").unlink()
    model = ("model=pretrained", f"model.checkpoint={source}", "model.max_tiles=2")
    done = cli(*FAST, *model, "trainer.max_steps=1", f"out={tmp_path}/run", cwd=work)
    assert done.returncode == 0, done.stderr
    assert cli("task=export", f"run={tmp_path}/run", f"out={tmp_path}/new", cwd=work).returncode == 0
    for name in ("preprocessor_config.json", "chat_template.jinja", "tokenizer_config.json"):
        assert (tmp_path / "new" / name).read_bytes() == (source / name).read_bytes()
    processor = json.loads((tmp_path / "new" / "processor_config.json").read_text())
    assert processor == {"processor_class": "InternVLProcessor", "image_seq_length": 4}
    assert json.loads((tmp_path / "new" / "video_preprocessor_config.json").read_text())["size"] == {
        "height": 56,
        "width": 56,
    }


def test_a_run_that_started_from_the_hub_is_exported_and_uploaded(
    cli, work: Path, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.repositories["someone/tiny"] = Repository.of(TINY)
    hub_server.accounts["secret"] = account("me", "lab")
    hub = hub_server.environment(tmp_path, "secret")
    model = ("model=pretrained", "model.checkpoint=someone/tiny", "model.max_pixels=100352")
    done = cli(*FAST, *model, "trainer.max_steps=1", "out=from_hub", cwd=work, **hub)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr + (work / "from_hub" / "run.log").read_text()
    assert not re.search(rf"HTTP|{hub_server.port}|secret|{SIGNATURE}", said)

    done = cli("task=export", "run=from_hub", "out=pushed", "task.push=lab/mine", cwd=work, **hub)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"\nwritten to {work / 'pushed'}\nuploaded to {hub_server.url}/lab/mine\n")
    repository = hub_server.repositories["lab/mine"]
    assert repository.private
    written = {file.name: file.read_bytes() for file in (work / "pushed").iterdir()}
    assert {name: repository.files[name] for name in written} == written
    assert written["tokenizer.json"] == (TINY / "tokenizer.json").read_bytes()
    card = written["README.md"].decode()
    assert "base_model: someone/tiny\n" in card
    assert "name = 'lab/mine'  # or a folder with its files\n" in card


def test_an_upload_that_cannot_work_is_refused_before_anything_is_loaded_or_written(cli, work: Path, tmp_path) -> None:
    env = {"HF_HOME": str(tmp_path), "HF_TOKEN": "any"}
    done = cli("task=export", "run=run", "out=new", "task.push=a/b", cwd=work, HF_ENDPOINT="http://127.0.0.1:9", **env)
    said = "error: task.push=a/b cannot work: http://127.0.0.1:9 cannot be reached: "
    assert (done.returncode, done.stderr.startswith(said), len(done.stderr.splitlines())) == (1, True, 1)
    assert not (work / "new").exists()


def test_a_refused_upload_keeps_the_folder_and_prints_the_command(
    cli, work: Path, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.accounts["secret"] = account("me")
    hub_server.refused = {"commit"}
    done = cli(
        "task=export",
        "run=run",
        "out=kept",
        "task.push=me/mine",
        cwd=work,
        **hub_server.environment(tmp_path, "secret"),
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {work / 'kept'} is written, but could not be uploaded to me/mine: ")
    assert done.stderr.endswith(f"; to upload it, run: hf upload me/mine {work / 'kept'} --private\n")
    assert len(done.stderr.splitlines()) == 1
    assert (work / "kept" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out=new",), "error: run is null"),
        (("run=run", "out=new", "task.push=model"), "task.push is 'model', expected ORGANISATION/NAME"),
        (("run=nowhere", "out=new"), "/nowhere is not a folder."),
        (("run=run", "out=run"), "is taken"),
        (("run=run", "out=new", "task.dtype=int8"), "task.dtype is 'int8', expected float32 | bfloat16 | float16"),
    ],
)
def test_an_export_that_cannot_work_is_one_line(cli, work: Path, arguments: tuple[str, ...], message: str) -> None:
    done = cli("task=export", *arguments, cwd=work)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (work / "new").exists()


def changed(work: Path, name: str, value: float) -> Path:
    """Copy the run, and set the first number of its last norm to a value."""
    run = Path(shutil.copytree(work / "run", work / name))
    file = (run / "checkpoints" / "last.ckpt").resolve()
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["state_dict"][f"{WEIGHTS}model.language_model.norm.weight"][0] = value
    torch.save(checkpoint, file)
    return run


@pytest.mark.parametrize(
    "task", [("task=export", "out=new", "run=infinite"), ("task=evaluate", "run=infinite"), ("resume=infinite",)]
)
def test_weights_that_are_not_finite_are_refused_by_name(cli, work: Path, task: tuple[str, ...]) -> None:
    shutil.rmtree(work / "infinite", ignore_errors=True)
    changed(work, "infinite", torch.inf)
    done = cli(*task, *(["trainer.max_steps=3"] if "resume=infinite" in task else []), cwd=work)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "model.language_model.norm.weight has infinite numbers or NaN" in line
    assert "Traceback" not in done.stderr
    assert not (work / "new").exists()


def test_weights_that_the_type_cannot_hold_are_refused_by_name(cli, work: Path) -> None:
    changed(work, "large", 1e5)
    done = cli("task=export", "run=large", "out=new", "task.dtype=float16", cwd=work)
    assert done.stderr == (
        "error: task.dtype is float16, which cannot hold model.language_model.norm.weight: expected float32 or "
        "bfloat16\n"
    )
    assert not (work / "new").exists()


def test_adapters_trained_on_4_bits_are_merged_into_the_unquantized_weights(cli, work: Path) -> None:
    pytest.importorskip("bitsandbytes")
    options = ("peft=qlora", "peft.rank=2", "peft.alpha=6", "optimizer.lr=0.05")
    done = cli(*FAST, *options, "out=small", cwd=work)
    assert done.returncode == 0, done.stderr
    done = cli("task=export", "run=small", "out=merged", cwd=work)
    assert done.returncode == 0, done.stderr
    merged = AutoModelForImageTextToText.from_pretrained(work / "merged", dtype=torch.float32).state_dict()
    learned = torch.load(work / "small" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    before = instantiate(OmegaConf.load(work / "small" / "config.yaml").model, peft=None).load_model().state_dict()
    adapters = {name.split(".lora_")[0].removeprefix(WEIGHTS) + ".weight" for name in learned}
    assert len(adapters) == 28
    for name, value in merged.items():
        expected = before[name]
        if name in adapters:
            a, b = (learned[f"{WEIGHTS}{name.removesuffix('.weight')}.lora_{half}.default.weight"] for half in "AB")
            assert b.abs().max() > 0
            expected = expected + 3 * b @ a
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("train", "shown"),
    [
        (None, "generated"),
        ("/data/mine.jsonl", "mine.jsonl"),
        (["/data/a.jsonl", {"file": "b.jsonl", "images": "images"}], "a.jsonl, b.jsonl"),
    ],
)
def test_the_card_names_the_data_however_they_are_listed(train, shown) -> None:
    assert model_card._data(train) == shown
