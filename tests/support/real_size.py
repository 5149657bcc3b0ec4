"""Recipes at the sizes of the released models, as fake models with prompts about blank images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from transformers import PreTrainedModel

from grit_lightning.app import config
from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.model.packing import PackedBatch, pack, plan_rows
from grit_lightning.system.paths import conf_dir
from grit_lightning.types import Completion, Group, Prompt
from support.fake_gpu import Known, fake_batch, fake_gpu, fake_model
from support.released import INTERNVL3_2B, MAKERS, QWEN2_5_VL_3B, QWEN2_5_VL_7B, QWEN3_VL_4B, TINY, full_size
from support.samples import one_image

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3b": ("qwen2_5_vl", QWEN2_5_VL_3B),
    "qwen3b_lora": ("qwen2_5_vl", QWEN2_5_VL_3B),
    "qwen7b_lora": ("qwen2_5_vl", QWEN2_5_VL_7B),
    "qwen3vl_4b": ("qwen3_vl", QWEN3_VL_4B),
    "internvl2b": ("internvl", INTERNVL3_2B),
}
"""Family and sizes of the model of each experiment."""

SIDE = 448
"""Pixels of an image's sides."""


@dataclass
class Recipe:
    """An experiment's config with its backbone, whose model has the real sizes."""

    values: dict[str, Any]
    backbone: PretrainedBackbone
    mode: FakeTensorMode
    monkeypatch: pytest.MonkeyPatch

    def model(self) -> PreTrainedModel:
        """Return the model with fake weights."""
        return fake_model(self.backbone, self.mode, self.monkeypatch)

    def prompt(self, words: int = 60) -> Prompt:
        """Return a prompt about a blank image."""
        question = " ".join(["How many?", *["word"] * words])
        sample = one_image("1", question, "2", Path("x"), (SIDE, SIDE), (), "tallyqa", "train", "x:1")
        prompt = self.backbone.encode(sample, [Image.new("RGB", (SIDE, SIDE))])
        return replace(prompt, position_ids_A_S=prompt.position_ids_A_S.as_subclass(Known))

    def first_pass(self, prompt: Prompt, length: int) -> PackedBatch:
        """Return the first pass of a step whose completions all have ``length`` tokens."""
        rollout, count = self.values["rollout"], self.values["data"]["prompts_per_step"]
        prompt = replace(prompt, position_ids_A_S=prompt.position_ids_A_S.as_subclass(torch.Tensor))
        completions = (Completion((5,) * length, "", "length", prompt.box_spaces),) * rollout["num_generations"]
        groups = [Group(slot, prompt, completions) for slot in range(count)]
        plan = plan_rows(groups, self.values["module"]["max_tokens_per_pass"], [False] * count)
        with unset_fake_temporarily():
            packed = pack(plan[0], groups)
        return fake_batch(packed, self.mode)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Return a function from the name of an experiment and overrides to the recipe."""

    def make(name: str, *overrides: str) -> Recipe:
        family, sizes = RECIPES[name]
        source = TINY if family == "qwen2_5_vl" else MAKERS[family](tmp_path / f"{name}_tiny")
        folder = full_size(tmp_path / name, source=source, **sizes)
        config.register()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = compose("config", [f"+experiment={name}", f"model.checkpoint={folder}", *overrides])
        values = config.check(cfg)
        return Recipe(values, instantiate(values["model"]), fake_gpu(monkeypatch), monkeypatch)

    return make
