"""Fixtures for reward tests: samples, completions, groups, and composed reward configs."""

from pathlib import Path

import pytest
import torch

from grit_lightning.types import Completion, Group, Prompt
from support.samples import one_image

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def make_sample():
    def make(answer="2", dataset="tallyqa", boxes=(), size=(640, 480), question="How many cats are there?"):
        return one_image("cats/1", question, answer, Path("cats.jpg"), size, boxes, dataset, "train", "cats.jsonl:1")

    return make


@pytest.fixture
def make_completion():
    def make(text, token_ids=None, box_space=(308, 252)):
        # Without token ids: one per word, all different.
        ids = tuple(range(len(text.split()))) if token_ids is None else tuple(token_ids)
        return Completion(ids, text, "stop", (box_space,))

    return make


@pytest.fixture
def make_group(make_sample, make_completion):
    def make(*texts):
        zeros = torch.zeros(1, dtype=torch.int64)
        prompt = Prompt(make_sample(), "", zeros, zeros[None], {}, ((308, 252),))
        return Group(0, prompt, tuple(make_completion(text) for text in texts))

    return make


@pytest.fixture
def compose(tmp_path):
    """Return a function that composes the exact judge and a reward group of ``conf/`` as the command line does."""
    from hydra import compose, initialize_config_dir

    def run(reward, *overrides):
        (tmp_path / "main.yaml").write_text(
            f"defaults: [judge: exact, reward: {reward}, _self_]\nhydra: {{searchpath: ['file://{CONF}']}}\n"
        )
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("main", overrides=list(overrides))

    return run
