"""Tests of the model card's snippet: it runs, and reads a picture and a question as the run does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from transformers.utils import is_torchvision_available

from grit_lightning.model.backbones.pretrained import FAMILIES, PretrainedBackbone
from grit_lightning.model.backbones.special_tokens import write_as_plain_text
from grit_lightning.tasks.card_snippet import card_snippet
from support.image_processors import without_torchvision
from support.released import MAKERS, TINY
from support.samples import noise, one_image, several_images

PROMPT = "\nQuestion: {question} Answer with 'yes', \"no\" or {a number}.\n"


def exported(family: str, folder: Path) -> PretrainedBackbone:
    """Write a tiny checkpoint of a family with the tokenizer of an export, and return its backbone."""
    if family == "qwen2_5_vl":
        shutil.copytree(TINY, folder)
    else:
        MAKERS[family](folder)
    backbone = PretrainedBackbone(
        checkpoint=str(folder), prompt=PROMPT, prefill="<think>", min_pixels=3136, max_pixels=20000, max_tiles=3,
        peft=None, dtype="float32", attn_implementation="auto", gradient_checkpointing=False, random_weights_seed=None,
        freeze=(),
    )  # fmt: skip
    write_as_plain_text(folder, backbone.plain_tokens)
    return backbone


@pytest.mark.parametrize("family", ["qwen2_5_vl", *MAKERS])
def test_the_snippet_gives_the_model_what_training_gave_it(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    backbone = exported(family, folder)
    image = Image.effect_noise((300, 150), 100).convert("RGB")
    image.save(folder / "picture.png")
    monkeypatch.chdir(folder)
    without_torchvision(monkeypatch)
    values = {
        "prompt": {"template": PROMPT, "prefill": "<think>"},
        "rollout": {"max_new_tokens": 3, "stop": "</answer>"},
    }
    names: dict[str, torch.Tensor] = {}
    exec(card_snippet(values, backbone.image_processor, None), names)

    question = "How many red circles are there?"
    prompt = backbone.encode(one_image("a", question, "2", Path("p"), image.size, (), "vsr", "train", "a:1"), [image])
    inputs, output = names["inputs"], names["output"][0]
    assert inputs["input_ids"][0].tolist() == prompt.input_ids_S.tolist()
    grey = 0.02 if is_torchvision_available() else 0  # torchvision rounds some pixels to the next of 256 levels
    torch.testing.assert_close(inputs["pixel_values"], prompt.vision["pixel_values"], rtol=0, atol=grey)
    written = output[prompt.num_tokens :].tolist()
    assert 1 <= len(written) <= 3
    assert capsys.readouterr().out == backbone.tokenizer.decode(written) + "\n"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_processor_of_an_export_gives_several_images_the_same_tokens(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = exported(family, tmp_path / "model")
    sizes = [(300, 150), (113, 207)]
    sample, images = several_images("Is <image> in <image>?", sizes), noise(sizes)
    ours = backbone.encode(sample, images)
    without_torchvision(monkeypatch)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "model")
    for name in ("size", "crop_to_patches", "min_patches", "max_patches"):
        if hasattr(backbone.image_processor, name):
            setattr(processor.image_processor, name, getattr(backbone.image_processor, name))
    theirs = processor(images=images, text=[ours.text], return_tensors="pt")
    assert theirs["input_ids"][0].tolist() == ours.input_ids_S.tolist()
    grey = 0.02 if is_torchvision_available() else 0  # torchvision rounds some pixels to the next of 256 levels
    torch.testing.assert_close(theirs["pixel_values"], ours.vision["pixel_values"], rtol=0, atol=grey)


def test_the_snippet_names_the_repository_that_it_is_uploaded_to(backbone: PretrainedBackbone) -> None:
    values = {"prompt": {"template": PROMPT, "prefill": ""}, "rollout": {"max_new_tokens": 3, "stop": "</answer>"}}
    assert "name = 'lab/mine'  # or a folder with its files\n" in card_snippet(
        values, backbone.image_processor, "lab/mine"
    )
