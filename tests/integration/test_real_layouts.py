"""Tests of every model family in the released layout: GRPO on photographs, and an export that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from transformers import AutoModelForImageTextToText

from support.photographs import VSR10
from support.released import MAKERS
from support.samples import one_image

SHORT = ("trainer.max_steps=3", "rollout.num_generations=4", "rollout.max_new_tokens=24", "rollout.stop=q")
QUICK = ("threads=1", "trainer.accelerator=cpu", "~callbacks.demonstration", "reward=digits", "optimizer.lr=1e-3")


@pytest.fixture(scope="module", params=["qwen2_5_vl", *MAKERS])
def checkpoint(request, backbone, tmp_path_factory) -> Path:
    if request.param == "qwen2_5_vl":
        return Path(backbone.weights_folder())
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def data(tmp_path: Path, shapes: Path) -> Path:
    """The folder of GRIT's ten VSR photographs; where it is missing, the bundled samples under their file name."""
    if VSR10.is_dir():
        return VSR10
    (shapes / "vsr_cot_train_10.jsonl").symlink_to(next(shapes.glob("*.jsonl")))
    return shapes


@torch.no_grad()
def logits(model: Any, backbone: Any) -> torch.Tensor:
    picture = Image.radial_gradient("L").resize((300, 200)).convert("RGB")
    sample = one_image("f/1", "How many?", "2", Path("x.png"), (300, 200), (), "vsr", "train", "f.jsonl:1")
    prompt = backbone.encode(sample, [picture])
    positions = prompt.position_ids_A_S[:, None] if len(prompt.position_ids_A_S) > 1 else prompt.position_ids_A_S
    return model(input_ids=prompt.input_ids_S[None], position_ids=positions, **prompt.vision).logits


@pytest.mark.slow
@pytest.mark.parametrize(
    "peft", [(), ("peft=lora", "peft.rank=4", "peft.parts=[language,vision]")], ids=["full", "lora"]
)
def test_three_grpo_steps_are_exported_for_transformers(
    cli, compose_config, checkpoint: Path, data: Path, tmp_path: Path, peft
) -> None:
    model = ("model=pretrained", f"model.checkpoint={checkpoint}", "model.max_pixels=12544", "model.max_tiles=2")
    done = cli(*model, *SHORT, *QUICK, *peft, "data=grit", f"data.root={data}", "out=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Training ended at step 3" in done.stdout
    rollouts = [file.read_text().splitlines() for file in (tmp_path / "run" / "rollouts").iterdir()]
    assert list(map(len, rollouts)) == [16, 16, 16]
    assert any(json.loads(line)["advantage"] for lines in rollouts for line in lines)

    done = cli("task=export", "run=run", "out=export", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "export")
    before = AutoModelForImageTextToText.from_pretrained(checkpoint)
    assert list(exported.state_dict()) == list(before.state_dict())
    source = instantiate(compose_config(*model, *peft, "model.random_weights_seed=null").model)
    trained = source.load_model()
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    trained.load_state_dict({name.removeprefix("policy.model."): value for name, value in state.items()}, strict=False)
    torch.testing.assert_close(logits(exported, source), logits(trained, source), rtol=0, atol=1e-5)
    assert not torch.allclose(logits(exported, source), logits(before, source), atol=1e-4)
    for file in checkpoint.iterdir():  # the processor's files are not this package's to change
        if source.plain_tokens and file.name in ("tokenizer.json", "tokenizer_config.json"):
            continue  # they split <think> (tests/model/backbones/test_special_tokens.py)
        if file.name not in ("config.json", "generation_config.json", "model.safetensors", "README.md"):
            assert (tmp_path / "export" / file.name).read_bytes() == file.read_bytes(), file.name
