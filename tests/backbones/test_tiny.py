"""The bundled checkpoint folder is what its module makes, and its tokenizer fits the world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from grit_lightning.backbones import tiny
from grit_lightning.synthetic import corpus
from grit_lightning.synthetic.lessons import Curriculum, lessons

PROMPTS = {"grounded": "Q: {question} First, think between <think> and </think>.", "plain": "{question}"}


@pytest.fixture(scope="module")
def trained(compose_config: Callable[..., Any]) -> Any:
    return instantiate(compose_config("model.random_weights_seed=null").model)


def test_the_bundled_folder_can_be_made_again(trained: Any, tmp_path: Path) -> None:
    tiny.write(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    folder = Path(trained.checkpoint)
    bundled = {path.name: path.read_text() for path in folder.iterdir()}
    for text in (bundled, made):  # written by transformers, with its version
        text["config.json"] = text["config.json"].split('"transformers_version"')[0]
    assert made == bundled


def test_every_text_of_the_world_round_trips(trained: Any) -> None:
    curriculum = Curriculum(few_shapes=((40, 2),), answering=((0, 0.5),), prompts=PROMPTS, grounded_share=0.5)
    taught = [lesson for index in range(200) for lesson in lessons(6, index, curriculum)]
    texts = [*corpus(seed=5, count=300, split="heldout"), *(x.prompt for x in taught), *(x.completion for x in taught)]
    texts += [trained.render(text) for text in texts[:20]]
    for text in texts:
        ids = trained.tokenizer(text)["input_ids"]
        assert trained.tokenizer.decode(ids) == text


def test_the_tags_are_one_token_each(trained: Any) -> None:
    assert trained.tokenizer.tokenize("<think>a</think><rethink></rethink><answer></answer>") == [
        "<think>", "a", "</think>", "<rethink>", "</rethink>", "<answer>", "</answer>",
    ]  # fmt: skip
