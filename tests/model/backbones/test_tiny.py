"""Tests of the bundled checkpoint: its module reproduces it, transformers loads it, its model card is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from transformers import AutoModelForImageTextToText, AutoTokenizer

from grit_lightning.app import config
from grit_lightning.data.shapes.completions import corpus
from grit_lightning.data.shapes.lessons import Curriculum, lessons
from grit_lightning.data.shapes.scenes import EARLY, STANDARD
from grit_lightning.evaluation.metrics import summary
from grit_lightning.model.backbones import tiny

PROMPTS = {"grounded": "Q: {question} First, think between <think> and </think>.", "plain": "{question}"}
CARD_TOLERANCE = 0.03
"""Two of 64 answers: on other processors rounding can turn a token whose logits are all but equal."""


@pytest.fixture(scope="module")
def trained(compose_config: Callable[..., Any]) -> Any:
    return instantiate(compose_config("model.random_weights_seed=null").model)


def test_the_bundled_folder_is_reproduced_by_its_module(trained: Any, tmp_path: Path) -> None:
    tiny.write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    folder = Path(trained.checkpoint)
    assert sorted({path.name for path in folder.iterdir()} - set(made)) == ["README.md", "model.safetensors"]
    bundled = {name: (folder / name).read_text() for name in made}
    for text in (bundled, made):  # written by transformers, with its version
        text["config.json"] = text["config.json"].split('"transformers_version"')[0]
    assert made == bundled


def test_every_text_of_the_shapes_world_round_trips_through_the_tokenizer(trained: Any) -> None:
    plan = Curriculum(
        few_shapes=((40, 2),),
        answering=((0, 0.5),),
        difficulties=((0, EARLY), (120, STANDARD)),
        listings=120,
        prompts=PROMPTS,
        grounded_share=0.5,
    )
    taught = [lesson for index in range(200) for lesson in lessons(6, index, plan)]
    texts = [*corpus(seed=5, count=300, split="heldout"), *(x.prompt for x in taught), *(x.completion for x in taught)]
    texts += [trained.render(text) for text in texts[:20]]
    for text in texts:
        ids = trained.tokenizer(text)["input_ids"]
        assert trained.tokenizer.decode(ids) == text


def test_each_tag_is_one_token(trained: Any) -> None:
    assert trained.tokenizer.tokenize("<think>a</think><rethink></rethink><answer></answer>") == [
        "<think>", "a", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>",
    ]  # fmt: skip


def test_plain_transformers_loads_the_weights(trained: Any, make_prompt: Callable[..., Any]) -> None:
    folder = Path(trained.checkpoint)
    assert (folder / "model.safetensors").stat().st_size <= 12_000_000
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values())
    prompt = make_prompt(question="How many red circles are there?")
    ids = prompt.input_ids_S[None]
    is_image = (ids == model.config.image_token_id).int()
    with torch.no_grad():
        plain, ours = (
            one(input_ids=ids, mm_token_type_ids=is_image, **prompt.vision).logits
            for one in (model, trained.load_model())
        )
    torch.testing.assert_close(plain, ours)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("<think> I see")["input_ids"]) == "<think> I see"
    assert 2e6 < model.num_parameters() < 4e6


@pytest.mark.slow
def test_an_evaluation_of_64_questions_agrees_with_the_model_card(compose_config: Callable[..., Any]) -> None:
    values = config.check(
        compose_config("model.random_weights_seed=null", "prompt=grounded_prefilled", "data.val=[{shapes: 32}]")
    )
    backbone, data, evaluator = (instantiate(values[key]) for key in ("model", "data", "evaluation"))
    data.attach(backbone.encode)
    with torch.no_grad():
        groups = evaluator.predict(
            backbone.load_model(), backbone, data.val_samples(), data.prompt, what="answering", quiet=True
        )
        predictions = [one for group in groups for one in group]
    assert len(predictions) == 64
    measured = summary(predictions)["overall"]
    card = (Path(backbone.checkpoint) / "README.md").read_text()
    row = re.search(r"^\| first 64, forced \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", card, re.MULTILINE)
    assert row, "the card has no such row"
    for name, said in zip(("accuracy", "grounding_iou", "grounded_format"), row.groups(), strict=True):
        assert measured[name] == pytest.approx(float(said), abs=CARD_TOLERANCE), name
