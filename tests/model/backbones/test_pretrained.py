"""Tests of a checkpoint's prompts, tokens and weights, and of the errors about an unusable one."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from PIL import Image
from safetensors.torch import load_file, save_file

from grit_lightning.errors import CheckpointError, ConfigError, DataError
from grit_lightning.model.backbones import pretrained
from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.model.backbones.random_weights import random_checkpoint
from grit_lightning.system.paths import conf_dir
from grit_lightning.types import Sample
from support import original_internvl as original
from support.samples import one_image


def sample(question: str, size: tuple[int, int]) -> Sample:
    return one_image("f/1", question, "2", Path("x.png"), size, (), "vsr", "train", "f.jsonl:1")


def load(
    folder: Path | str,
    prompt: str = "\nQuestion: {question} Think.",
    prefill: str = "",
    freeze: tuple[str, ...] = (),
) -> PretrainedBackbone:
    return PretrainedBackbone(
        checkpoint=str(folder), prompt=prompt, prefill=prefill, min_pixels=3136, max_pixels=100352, max_tiles=4,
        peft=None, dtype="float32", attn_implementation="auto", gradient_checkpointing=False, random_weights_seed=None,
        freeze=freeze,
    )  # fmt: skip


@pytest.fixture
def folder(backbone: PretrainedBackbone, tmp_path: Path) -> Path:
    """A copy of the tiny model's checkpoint folder that tests may damage."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(backbone.weights_folder(), copy)
    return copy


def test_prompt_is_rendered_as_the_released_template_does(folder: Path) -> None:
    assert load(folder).render("Is it {red}?") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>\nQuestion: Is it {red}? Think.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_prefill_is_part_of_the_prompt_and_not_sampled(backbone) -> None:
    prefilled = load(backbone.checkpoint, prefill="<think>")
    assert prefilled.render("Is it?") == load(backbone.checkpoint).render("Is it?") + "<think>"
    image, asked = Image.new("RGB", (112, 112)), sample("Is it?", (112, 112))
    plain, prompt = load(backbone.checkpoint).encode(asked, [image]), prefilled.encode(asked, [image])
    opening = backbone.tokenizer("<think>")["input_ids"]
    assert prompt.input_ids_S.tolist() == [*plain.input_ids_S.tolist(), *opening]
    assert prompt.position_ids_A_S.shape[1] == prompt.num_tokens
    sampled = backbone.tokenizer(" a </think> <answer> 2 </answer>")["input_ids"]
    completion = prefilled.completion(sampled, "stop", prompt)
    assert completion.text == "<think> a </think> <answer> 2 </answer>"
    assert completion.token_ids == tuple(sampled)
    target = prefilled.target(completion.text, prompt)
    assert (target.text, target.token_ids) == (completion.text, (*sampled, prefilled.end_of_turn_id))


def test_a_target_that_does_not_begin_with_the_prefill_is_refused(backbone) -> None:
    prefilled = load(backbone.checkpoint, prefill="<think>")
    prompt = prefilled.encode(sample("Is it?", (112, 112)), [Image.new("RGB", (112, 112))])
    with pytest.raises(DataError, match=r"^f.jsonl:1: the completion does not begin with prompt\.prefill, <think>$"):
        prefilled.target("Yes", prompt)


@pytest.mark.parametrize("name", ["grounded", "grounded_prefilled", "grounded_icl", "plain"])
def test_each_prompt_asks_its_question_within_the_limit(compose_config, name: str) -> None:
    cfg = compose_config(f"prompt={name}")
    made = instantiate(cfg.model)
    question = "Is the purple triangle at the right side of the orange diamond?"
    prompt = made.encode(sample(question, (448, 224)), [Image.new("RGB", (448, 224))])
    assert question in prompt.text
    assert prompt.text.endswith(f"assistant\n{cfg.prompt.prefill}")
    assert prompt.num_tokens <= cfg.data.max_prompt_tokens


@pytest.mark.parametrize(
    ("size", "box_space"), [((640, 480), (364, 252)), ((112, 140), (112, 140)), ((20, 20), (56, 56))]
)
def test_boxes_are_in_pixels_of_the_resized_image(backbone, size, box_space) -> None:
    prompt = backbone.encode(sample("How many?", size), [Image.new("RGB", size)])
    assert prompt.box_spaces[0] == box_space
    _, height, width = prompt.vision["image_grid_thw"][0].tolist()
    assert (width * 14, height * 14) == box_space


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>"])
def test_a_question_with_a_control_token_is_refused_by_line(backbone, token: str) -> None:
    with pytest.raises(DataError, match=rf"f.jsonl:1: field 'question' contains .* {re.escape(token)}$"):
        backbone.encode(sample(f"What is {token}?", (112, 112)), [Image.new("RGB", (112, 112))])


def test_a_question_may_hold_tags_that_are_one_token(backbone) -> None:
    assert "<think>" in backbone.tokenizer.get_added_vocab()
    prompt = backbone.encode(sample("Use <think> and bbox_2d.", (112, 112)), [Image.new("RGB", (112, 112))])
    assert "Use <think> and bbox_2d." in prompt.text


def test_a_prompt_without_the_question_is_refused(backbone) -> None:
    with pytest.raises(ConfigError, match=r"prompt\.template lacks \{question\}"):
        load(backbone.checkpoint, prompt="Look at the {Question}.")


def test_tokenizer_splits_digits_and_round_trips(backbone) -> None:
    text = 'I see {"bbox_2d": [12, 345, 67, 890]}\n\té 日本 🙂 <answer> 42 </answer>'
    ids = backbone.tokenizer(text)["input_ids"]
    assert backbone.tokenizer.decode(ids) == text
    tokens = [backbone.tokenizer.decode(i) for i in ids]
    assert not [token for token in tokens if sum(character.isdigit() for character in token) > 1]


def released_layout(folder: Path) -> None:
    """Rewrite a checkpoint in the released layout: flat config, old names of weights, area limits in pixels."""
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type")
    flat = {key: value for key, value in text.items() if key not in ("layer_types", "dtype")}
    flat |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    vision = {
        key: value for key, value in config["vision_config"].items() if key not in ("model_type", "rope_parameters")
    }
    vision["in_chans"] = vision.pop("in_channels")
    flat |= {"torch_dtype": "bfloat16", "sliding_window": 32768, "use_sliding_window": False, "max_window_layers": 70}
    (folder / "config.json").write_text(json.dumps(config | flat | {"vision_config": vision}))
    weights = load_file(folder / "model.safetensors")  # transformers saves the old names
    assert {name.split(".")[0] for name in weights} == {"visual", "model"}
    assert "model.norm.weight" in weights
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "min_pixels": 3136,
                "max_pixels": 12845056,
                "patch_size": 14,
                "temporal_patch_size": 2,
                "merge_size": 2,
                "image_mean": [0.48145466, 0.4578275, 0.40821073],
                "image_std": [0.26862954, 0.26130258, 0.27577711],
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2_5_VLProcessor",
            }
        )
    )
    (folder / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "repetition_penalty": 1.05, "temperature": 1e-6, "eos_token_id": [1, 2]})
    )


def test_a_checkpoint_in_the_released_layout_is_the_same_model(backbone, folder: Path) -> None:
    released_layout(folder)
    other = load(folder)
    expected, model = backbone.load_model(), other.load_model()
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # not the bf16 its config names
    prompt = other.encode(
        sample("How many?", (300, 200)), [Image.radial_gradient("L").resize((300, 200)).convert("RGB")]
    )
    assert prompt.num_tokens < 200  # the limit on the area is the config's, not the checkpoint's
    arguments = {
        "input_ids": prompt.input_ids_S[None],
        "mm_token_type_ids": (prompt.input_ids_S == other.config.image_token_id).int()[None],
        **prompt.vision,
    }
    with torch.no_grad():
        torch.testing.assert_close(model(**arguments).logits, expected(**arguments).logits, rtol=0, atol=0)


def test_a_released_internvl_is_converted_and_gives_the_same_logits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GRIT_LIGHTNING_CACHE", str(tmp_path / "cache"))
    values = original.config()
    weights = original.random_weights(values)
    made = load(original.write(tmp_path / "InternVL3", values, weights))
    assert made.family.name == "InternVL"
    picture = Image.radial_gradient("L").resize((300, 200)).convert("RGB")
    prompt = made.encode(sample("How many?", (300, 200)), [picture])
    assert prompt.box_spaces[0] == (1000, 1000)
    with torch.no_grad():
        ours = made.load_model()(input_ids=prompt.input_ids_S[None], **prompt.vision).logits
    expected = original.logits(values, weights, prompt.vision["pixel_values"], prompt.input_ids_S)
    torch.testing.assert_close(ours[0], expected, rtol=0, atol=1e-4)


def test_random_weights_are_made_once_and_depend_on_the_seed(backbone) -> None:
    first, other = (random_checkpoint(backbone.config, seed) for seed in (10, 11))
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert random_checkpoint(backbone.config, 10) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
    weights = [load_file(folder / "model.safetensors")["visual.merger.mlp.0.weight"] for folder in (first, other)]
    assert not torch.equal(*weights)


def test_the_bundled_model_has_two_to_four_million_parameters(backbone) -> None:
    parameters = sum(p.numel() for p in backbone.load_model().parameters())
    assert 2e6 < parameters < 4e6


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2", "vocab_size": 10}')


def damage_weights(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
        (damage_config, "model type is 'qwen2', expected one of qwen2_5_vl, qwen3_vl, internvl"),
        (damage_weights, r"model\.safetensors: ends within its header: the download is incomplete"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"holds no weights, neither model\.safetensors nor"),
    ],
    ids=["no_folder", "no_config", "another_family", "torn_weights", "no_weights"],
)
def test_an_unusable_checkpoint_is_one_sentence(folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load(folder).load_model()
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torn_shard_is_named_before_a_run_is_begun(folder: Path) -> None:
    model = load(folder).load_model()
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="2MB")
    shards = sorted(folder.glob("*.safetensors"))
    assert load(folder).weights_folder() == str(folder)
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{shards[1]}: has \d+ of its \d+ bytes: the download is incomplete"):
        load(folder).weights_folder()
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{folder}: lacks {shards[1].name}, one of the {len(shards)} files"):
        load(folder).weights_folder()


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"norm\.weight"):
        load(folder).load_model()


def test_missing_weights_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        load(folder).load_model()


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_dir() / "model").glob("*.yaml")))
def test_every_model_config_names_the_backbone_class(compose_config, name: str) -> None:
    assert get_class(compose_config(f"model={name}").model._target_) is PretrainedBackbone


def test_the_default_model_config_builds_a_backbone(compose_config) -> None:
    assert isinstance(instantiate(compose_config().model), PretrainedBackbone)


def test_parts_can_be_frozen_by_name(backbone) -> None:
    part = load(backbone.weights_folder(), freeze=("vision", "projector")).load_model()
    trained = {name.split(".")[1] for name, value in part.named_parameters() if value.requires_grad}
    assert trained == {"language_model"}


def test_without_liger_the_error_says_what_to_install(compose_config, monkeypatch) -> None:
    monkeypatch.setattr(pretrained, "is_liger_kernel_available", lambda: False)
    with pytest.raises(InstantiationException) as raised:
        instantiate(compose_config("model.liger=true").model)
    assert isinstance(raised.value.__cause__, ConfigError)
    assert str(raised.value.__cause__) == "model.liger needs liger-kernel: pip install 'grit-lightning[liger]'"


@pytest.mark.parametrize(
    ("cuda", "installed", "used"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_liger_is_used_by_default_on_a_gpu_where_it_is_installed(
    compose_config, monkeypatch, cuda: int, installed: int, used: bool
) -> None:
    monkeypatch.setattr(pretrained, "is_liger_kernel_available", lambda: bool(installed))
    monkeypatch.setattr(pretrained.torch.cuda, "is_available", lambda: bool(cuda))
    assert instantiate(compose_config().model).liger is used


def test_liger_patches_the_model_but_not_its_head(compose_config, monkeypatch) -> None:
    patched: list[tuple[Any, dict[str, bool]]] = []
    monkeypatch.setattr(pretrained, "is_liger_kernel_available", lambda: True)
    monkeypatch.setattr(pretrained, "apply_liger_kernel", lambda *given: patched.append(given))
    model = instantiate(compose_config("model.liger=true").model).load_model()
    assert patched == [(model, {"cross_entropy": False, "fused_linear_cross_entropy": False})]
