"""The bundled checkpoint folder is what its module makes."""

from __future__ import annotations

from pathlib import Path

from grit_lightning.backbones import tiny
from grit_lightning.synthetic import corpus


def test_the_bundled_folder_can_be_made_again(backbone, tmp_path: Path) -> None:
    tiny.write(tmp_path)
    bundled = {path.name: path.read_text() for path in Path(backbone.checkpoint).iterdir()}
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    for text in (bundled, made):  # written by transformers, with its version
        text["config.json"] = text["config.json"].split('"transformers_version"')[0]
    assert made == bundled


def test_every_text_of_the_world_round_trips(backbone) -> None:
    for text in corpus(seed=5, count=300, split="heldout"):
        assert backbone.tokenizer.decode(backbone.tokenizer(text)["input_ids"]) == text
