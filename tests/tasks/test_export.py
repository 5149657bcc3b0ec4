"""Tests of ``task=export``: the folder holds the trained weights, and plain transformers loads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import AutoModelForImageTextToText, AutoTokenizer

from support.released import TINY

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
    done = cli("task=export", "ckpt=run", f"out={dtype}", f"task.dtype={dtype}", cwd=work)
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
    done = cli("task=export", "ckpt=bf", "out=narrow", "task.dtype=bfloat16", cwd=work)
    assert done.returncode == 0, done.stderr
    config = json.loads((work / "narrow" / "config.json").read_text())
    assert {part["dtype"] for part in (config, config["text_config"], config["vision_config"])} == {"bfloat16"}
    assert (work / "narrow" / "generation_config.json").read_bytes() == given


def test_an_exported_folder_answers_as_the_run_does(cli, work: Path) -> None:
    assert cli("task=export", "ckpt=run", "out=again", cwd=work).returncode == 0
    evaluate = ("task=evaluate", "data.val=[{shapes: 2}]", "rollout.max_new_tokens=16", "threads=1")
    exported = ("model=pretrained", "model.checkpoint=again", "model.max_pixels=100352")
    assert cli(*evaluate, *exported, "out=a", cwd=work).returncode == 0
    assert cli(*evaluate, "ckpt=run", "name=b", cwd=work).returncode == 0
    assert (work / "a" / "predictions.jsonl").read_text().count('"token_ids"') == 4
    texts = [
        [line.split('"token_ids"')[1] for line in (work / folder / "predictions.jsonl").read_text().splitlines()]
        for folder in ("a", "run/eval/b")
    ]
    assert texts[0] == texts[1]


def test_the_model_card_lists_evaluations(cli, work: Path) -> None:
    evaluate = ("task=evaluate", "data.val=[{shapes: 2}]", "rollout.max_new_tokens=16", "threads=1", "name=mine")
    assert cli(*evaluate, "ckpt=run", cwd=work).returncode == 0
    assert cli("task=export", "ckpt=run", "out=measured", cwd=work).returncode == 0
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


def test_a_failed_upload_keeps_the_folder(cli, work: Path) -> None:
    done = cli("task=export", "ckpt=run", "out=kept", "task.push=me/model", cwd=work, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "is written, but could not be uploaded to me/model" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (work / "kept" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out=new",), "error: ckpt is null"),
        (("ckpt=run", "out=new", "task.push=model"), "task.push is 'model', expected ORGANISATION/NAME"),
        (("ckpt=nowhere", "out=new"), "/nowhere is not a folder."),
        (("ckpt=run", "out=run"), "is taken"),
        (("ckpt=run", "out=new", "task.dtype=int8"), "task.dtype is 'int8', expected float32 | bfloat16 | float16"),
    ],
)
def test_an_export_that_cannot_work_is_one_line(cli, work: Path, arguments: tuple[str, ...], message: str) -> None:
    done = cli("task=export", *arguments, cwd=work)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (work / "new").exists()


def test_adapters_trained_on_4_bits_are_merged_into_the_unquantized_weights(cli, work: Path) -> None:
    pytest.importorskip("bitsandbytes")
    options = ("peft=qlora", "peft.rank=2", "peft.alpha=6", "optimizer.lr=0.05")
    done = cli(*FAST, *options, "out=small", cwd=work)
    assert done.returncode == 0, done.stderr
    done = cli("task=export", "ckpt=small", "out=merged", cwd=work)
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
