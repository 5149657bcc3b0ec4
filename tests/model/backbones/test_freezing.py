"""Tests of freezing parameters by part of the model or by name prefix."""

from __future__ import annotations

import pytest
import torch

from grit_lightning.errors import ConfigError
from grit_lightning.model.backbones.freezing import freeze


@pytest.fixture
def model(backbone) -> torch.nn.Module:
    return backbone.load_model()


def test_frozen_parameters_are_those_named(backbone, model) -> None:
    freeze(model, ("model.visual.patch_embed", "model.visual.merger"), backbone.family.parts, "tiny")
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {
        name for name, _ in model.named_parameters() if name.split(".")[2:3] in (["patch_embed"], ["merger"])
    }
    assert len(frozen) > 3


def test_an_unknown_part_to_freeze_is_refused(backbone, model) -> None:
    with pytest.raises(ConfigError, match=r"^model\.freeze: eyes is none of vision, projector, language, and"):
        freeze(model, ("vision", "eyes"), backbone.family.parts, "tiny")
