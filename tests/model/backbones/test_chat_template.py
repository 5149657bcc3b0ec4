"""Tests of where a checkpoint's chat template is read from, and of templates that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from grit_lightning.errors import CheckpointError
from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from support.released import TINY

TEMPLATE = (TINY / "chat_template.jinja").read_text(encoding="utf-8")
OTHER = TEMPLATE.replace("You are a helpful assistant.", "You are another assistant.")
TEXT_ONLY = "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}{% endfor %}"
AS_WRITTEN = "{% for message in messages %}<|im_start|>user\n{{ message['content'] }}<|im_end|>\n{% endfor %}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint without a chat template."""
    copy = shutil.copytree(TINY, tmp_path / "checkpoint")
    (copy / "chat_template.jinja").unlink()
    return copy


def load(folder: Path) -> PretrainedBackbone:
    return PretrainedBackbone(
        checkpoint=str(folder), prompt="\n{question}", prefill="", min_pixels=3136, max_pixels=100352, max_tiles=4,
        peft=None, dtype="float32", attn_implementation="auto", gradient_checkpointing=False, random_weights_seed=None,
        freeze=(),
    )  # fmt: skip


def in_jinja(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def in_json(folder: Path, template: object) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")


def in_tokenizer_config(folder: Path, template: str) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template}), encoding="utf-8")


@pytest.mark.parametrize("write", [in_jinja, in_json, in_tokenizer_config])
def test_a_template_is_read_from_each_place_that_transformers_reads(
    folder: Path, backbone: PretrainedBackbone, write: Callable[[Path, str], None]
) -> None:
    write(folder, TEMPLATE)
    assert load(folder).tokenizer.chat_template == backbone.tokenizer.chat_template


@pytest.mark.parametrize(("first", "second"), [(in_jinja, in_json), (in_json, in_tokenizer_config)])
def test_the_template_is_the_one_that_the_processor_of_transformers_prefers(folder: Path, first, second) -> None:
    second(folder, TEXT_ONLY)
    first(folder, OTHER)
    assert "You are another assistant." in load(folder).render("Is it?")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            None,
            "has no chat template, expected one in chat_template.jinja, chat_template.json or tokenizer_config.json",
        ),
        (
            TEXT_ONLY,
            "its chat template cannot render a message with an image, expected one that takes a list of an image and "
            'a text: can only concatenate str (not "list") to str',
        ),
        (
            "{% if %}",
            "its chat template cannot render a message with an image, expected one that takes a list of an image and "
            "a text: Expected an expression, got 'end of statement block'",
        ),
        (
            AS_WRITTEN,
            "its chat template does not render an image, expected one <|image_pad|> for a message with an image",
        ),
    ],
    ids=["none", "text_only", "broken", "list_as_text"],
)
def test_a_checkpoint_without_a_template_for_images_is_one_sentence(
    folder: Path, template: str | None, message: str
) -> None:
    if template is not None:
        in_jinja(folder, template)
    with pytest.raises(CheckpointError) as error:
        load(folder)
    assert str(error.value) == f"{folder}: {message}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read, expected an object with the field chat_template"),
        ('"text"', "cannot be read, expected an object with the field chat_template"),
        ('{"chat_template": [1]}', "field chat_template is list, expected a text"),
    ],
)
def test_an_unusable_template_file_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "chat_template.json").write_text(content)
    with pytest.raises(CheckpointError) as error:
        load(folder)
    assert str(error.value) == f"{folder}/chat_template.json: {message}"
