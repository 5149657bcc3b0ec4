"""Tests of checkpoints that cannot be converted: the error is one sentence, and nothing is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from grit_lightning.errors import CheckpointError
from grit_lightning.model.conversion.internvl import convert
from support import original_internvl as original

Spoil = Callable[[Path], None]
SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


def values(section: str | None = None, **fields: object) -> Spoil:
    """Return a function that changes fields of the config or of one of its sections."""

    def spoil(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (config[section] if section else config).update(fields)
        (folder / "config.json").write_text(json.dumps(config))

    return spoil


def text(name: str, content: str) -> Spoil:
    return lambda folder: (folder / name).write_text(content) and None


def gone(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    file = folder / SHARD
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def without_index(folder: Path) -> None:
    (folder / INDEX).unlink()


def weights(change: Callable[[dict[str, torch.Tensor]], object], file: str = SHARD) -> Spoil:
    def spoil(folder: Path) -> None:
        held = load_file(folder / file)
        change(held)
        save_file(held, folder / file)

    return spoil


def without_image_token(folder: Path) -> None:
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["added_tokens_decoder"][str(original.token_id("<IMG_CONTEXT>"))]
    file.write_text(json.dumps(config))


NORM = "mlp1.0.weight"
REFUSED: dict[str, tuple[Spoil, str]] = {
    "no config": (gone("config.json"), r"/config\.json: cannot be read: No such file or directory"),
    "config cut short": (text("config.json", '{"a'), r"/config\.json: is not valid JSON: .+"),
    "config is a list": (text("config.json", "[]"), r"/config\.json: is not a JSON object"),
    "native": (
        values(architectures=["InternVLForConditionalGeneration"], model_type="internvl"),
        ": is in the native layout already, there is nothing to convert",
    ),
    "other architecture": (
        values(architectures=["LlavaForConditionalGeneration"], model_type="llava"),
        ": its architecture is LlavaForConditionalGeneration, expected InternVLChatModel",
    ),
    "other language model": (
        values("llm_config", architectures=["InternLM2ForCausalLM"], model_type="internlm2"),
        ": its language model is InternLM2ForCausalLM, expected Qwen2ForCausalLM",
    ),
    "no language model": (values(llm_config=None), ": its language model is None, expected Qwen2ForCausalLM"),
    "transposing pixel shuffle": (
        values(ps_version="v1"),
        ": ps_version is 'v1', which transposes the image; expected 'v2'",
    ),
    "other conversation": (
        values(template="Hermes-2"),
        ": its conversation template is 'Hermes-2', expected 'internvl2_5'",
    ),
    "resized tower": (
        values(force_image_size=448),
        r": force_image_size is 448, expected vision_config\.image_size, 56",
    ),
    "norm of queries": (
        values("vision_config", qk_normalization=True, layer_norm_eps=1e-5),
        r": vision_config\.layer_norm_eps is 1e-05, expected 1e-06, as in the native norm of queries and keys",
    ),
    "no thumbnail": (
        values(use_thumbnail=False),
        ": use_thumbnail is false, but the native processor always adds a thumbnail",
    ),
    "wrong type": (values("vision_config", hidden_size="wide"), r"/config\.json: is not a valid InternVL config: .+"),
    "no weights": (gone(INDEX), rf": holds no weights, neither model\.safetensors nor {re.escape(INDEX)}"),
    "index cut short": (text(INDEX, '{"weight_map": {'), rf"/{re.escape(INDEX)}: is not a weight index: .+"),
    "shard missing": (gone(SHARD), rf": lacks {SHARD}, one of the 3 files that {re.escape(INDEX)} names"),
    "shard cut short": (cut, rf"/{SHARD}: has \d+ of its \d+ bytes: the download is incomplete"),
    "shard empty": (text(SHARD, ""), rf"/{SHARD}: ends within its header: the download is incomplete"),
    "shard of text": (text(SHARD, "version https://git-lfs"), rf"/{SHARD}: is not a safetensors file: .+"),
    "weight missing": (weights(lambda held: held.pop(NORM)), rf": its weights lack {re.escape(NORM)}"),
    "weight left over": (
        weights(lambda held: held.update({"mlp1.7.weight": torch.ones(1), "mlp1.7.bias": torch.ones(1)})),
        r": its config\.json has no place for these weights: 2 tensors, for example mlp1\.7\.bias",
    ),
    "weight of another shape": (
        weights(lambda held: held.update({NORM: torch.ones(3)})),
        rf": {re.escape(NORM)} has shape \(3,\), which does not fit its config\.json",
    ),
    "untied, but no head": (
        weights(lambda held: held.pop("language_model.lm_head.weight"), "model-00001-of-00003.safetensors"),
        r": its weights lack language_model\.lm_head\.weight",
    ),
    "more layers": (
        values("llm_config", num_hidden_layers=3),
        r": its weights lack 12 tensors, for example language_model\.model\.layers\.2\.input_layernorm\.weight",
    ),
    "tokenizer cut short": (text("merges.txt", "a"), ": its tokenizer cannot be read: .+"),
    "tokenizer config cut short": (text("tokenizer_config.json", "{"), ": its tokenizer cannot be read: .+"),
    "no vocabulary": (gone("vocab.json"), r": lacks vocab\.json, a file of its tokenizer"),
    "no image token": (without_image_token, ": its tokenizer lacks <IMG_CONTEXT>"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_source_that_cannot_be_converted_is_one_sentence(tmp_path: Path, name: str) -> None:
    spoil, message = REFUSED[name]
    config = original.config()
    source = original.write(tmp_path / "original", config, original.random_weights(config), shards=3)
    spoil(source)
    with pytest.raises(CheckpointError) as error:
        convert(source, tmp_path / "native")
    assert re.fullmatch(re.escape(str(source)) + message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["original"]


def test_a_head_stored_beside_a_tied_embedding_is_left_out(tmp_path: Path) -> None:
    config = original.config()
    kept = original.random_weights(config)
    config["llm_config"]["tie_word_embeddings"] = True
    convert(original.write(tmp_path / "original", config, kept), tmp_path / "native")
    converted = load_file(tmp_path / "native" / "model.safetensors")
    assert "language_model.lm_head.weight" in kept
    assert "language_model.lm_head.weight" not in converted


def test_a_target_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    config = original.config()
    source = original.write(tmp_path / "original", config, original.random_weights(config))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"native cannot be written: .+ \(.+\)$"):
        convert(source, tmp_path / "file" / "native")
