"""Tests of LoRA: fresh adapters change no output, the reference is the untrained model, merging keeps the output."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from peft import LoraConfig, get_peft_model

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.model import adapters
from grit_lightning.model.adapters import LoRA, adapted, as_at_start, merge, saved_names, trained_sentence
from grit_lightning.model.packing import pack, plan_rows
from grit_lightning.model.policy import Policy
from grit_lightning.model.reference import PolicyAtStart


def lora(**changes) -> LoRA:
    options = {"rank": 4, "alpha": 8, "parts": ["language"], "checkpoint": None, "seed": 3, "quantize": None}
    return LoRA(**(options | changes))


@pytest.fixture
def model(backbone):
    return backbone.load_model()


@pytest.fixture
def parts(backbone):
    return backbone.family.parts


def learn_something(model) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))


@torch.no_grad()
def logits(model, prompt) -> torch.Tensor:
    return model(
        input_ids=prompt.input_ids_S[None], position_ids=prompt.position_ids_A_S[:, None], **prompt.vision
    ).logits


def test_fresh_adapters_change_no_output_and_only_they_are_trained(model, parts, prompts) -> None:
    before, frozen = logits(model, prompts[0]), set(model.state_dict())
    lora().fit(model, parts)
    assert torch.equal(logits(model, prompts[0]), before)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained == saved_names(model)
    assert all(".lora_" in name for name in trained)
    assert {name.replace(".base_layer", "") for name in set(model.state_dict()) - trained} == frozen


@pytest.mark.parametrize("chosen", [["language"], ["vision", "projector"], ["language", "vision", "projector"]])
def test_the_parts_named_get_adapters_in_all_their_linear_layers(model, parts, chosen) -> None:
    towers = {"language": "language_model", "vision": "visual", "projector": "visual"}
    linear = {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.split(".")[1:2] and name.split(".")[1] in map(towers.get, chosen)
    }
    lora(parts=chosen).fit(model, parts)
    assert set(adapted(model)) == linear
    assert len(linear) > 5


def test_the_same_seed_gives_the_same_adapters(backbone, parts) -> None:
    made = []
    for seed in (3, 3, 4):
        model = backbone.load_model()
        torch.rand(seed)  # whatever was drawn before
        lora(seed=seed).fit(model, parts)
        made.append({name: model.state_dict()[name] for name in saved_names(model) if "lora_A" in name})
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not any(torch.equal(made[0][name], made[2][name]) for name in made[0])


def test_adapters_of_a_bf16_model_are_bf16(model, parts) -> None:
    model.to(torch.bfloat16)
    lora().fit(model, parts)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {torch.bfloat16}


def test_the_reference_is_the_model_before_training(backbone, model, parts, prompts, make_group) -> None:
    group = make_group(prompts[0], [5, 3])
    (rows,) = plan_rows([group], 10_000, [False])
    batch = pack(rows, [group])
    options = {"banned_token_ids": backbone.banned_token_ids, "temperature": 0.9, "logits_chunk": 64}
    with torch.no_grad():
        before = Policy(model, **options)(batch).logprobs_T
    lora().fit(model, parts)
    learn_something(model)
    policy = Policy(model, **options).eval()
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert torch.equal(PolicyAtStart(policy)(batch), before)
    with torch.no_grad():
        assert not torch.allclose(policy(batch).logprobs_T, before, atol=1e-2)
    assert {name for name, value in model.named_parameters() if value.requires_grad} == trained


def test_merging_leaves_an_ordinary_model_with_the_same_output(model, parts, prompts) -> None:
    names = list(model.state_dict())
    lora(parts=["language", "vision"]).fit(model, parts)
    before = logits(model, prompts[0])
    learn_something(model)
    learned = logits(model, prompts[0])
    assert not torch.allclose(learned, before, atol=1e-2)
    merge(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(logits(model, prompts[0]), learned, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_training_continues_from_adapters_saved_by_peft(backbone, model, parts, prompts, tmp_path: Path) -> None:
    plain = copy.deepcopy(model)
    made = get_peft_model(plain, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    expected = logits(made, prompts[0])
    made.save_pretrained(tmp_path / "adapters")
    lora(checkpoint=str(tmp_path / "adapters")).fit(model, parts)
    torch.testing.assert_close(logits(model, prompts[0]), expected, rtol=0, atol=1e-5)
    learn_something(model)
    assert not torch.allclose(logits(model, prompts[0]), expected, atol=1e-2)
    with as_at_start(model):
        torch.testing.assert_close(logits(model, prompts[0]), expected, rtol=0, atol=1e-5)
    assert saved_names(model) == {name for name, value in model.named_parameters() if value.requires_grad}
    learned = logits(model, prompts[0])
    merge(model)
    torch.testing.assert_close(logits(model, prompts[0]), learned, rtol=0, atol=1e-4)


def test_invalid_adapter_options_are_one_sentence(model, parts, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"peft\.parts: eyes is none of vision, projector, language"):
        lora(parts=["eyes"]).fit(model, parts)
    with pytest.raises(ConfigError, match=r"peft\.rank is 0"):
        lora(rank=0)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["q_proj"]}')
    with pytest.raises(CheckpointError, match="cannot be loaded as adapters") as caught:
        lora(checkpoint=str(tmp_path)).fit(model, parts)
    assert "\n" not in str(caught.value)


def test_the_lora_config_sets_the_rank(compose_config) -> None:
    backbone = instantiate(compose_config("peft=lora", "peft.rank=2").model)
    assert {value.shape[0] for name, value in backbone.load_model().named_parameters() if "lora_A" in name} == {2}


@pytest.fixture
def quantized(compose_config):
    """The backbone with a 4-bit language model, and the loaded model."""
    pytest.importorskip("bitsandbytes")
    backbone = instantiate(compose_config("peft=qlora", "peft.rank=2").model)
    return backbone, backbone.load_model()


def test_the_language_model_is_held_in_4_bits_and_only_adapters_are_trained(quantized, model) -> None:
    _, small = quantized
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            held = small.get_submodule(name)
            weight = held.get_base_layer().weight if hasattr(held, "get_base_layer") else held.weight
            in_4_bits = name.startswith("model.language_model.")
            assert (weight.dtype, weight.numel()) == (
                (torch.uint8, layer.weight.numel() // 2) if in_4_bits else (torch.float32, layer.weight.numel())
            ), name
    assert all(".lora_" in name for name, value in small.named_parameters() if value.requires_grad)
    assert saved_names(small) == {name for name, value in small.named_parameters() if value.requires_grad}
    trained = sum(value.numel() for value in small.parameters() if value.requires_grad)
    total = sum(value.numel() for value in model.parameters()) + trained
    assert trained_sentence(small).startswith(f"{trained:,} of {total:,} parameters are trained: adapters in ")


def test_a_4_bit_model_approximates_the_model_and_learns(quantized, model, prompts, make_group) -> None:
    backbone, small = quantized
    exact, near = logits(model, prompts[0]), logits(small, prompts[0])
    assert 0 < (near - exact).norm() / exact.norm() < 0.2
    group = make_group(prompts[0], [5, 3])
    (rows,) = plan_rows([group], 10_000, [False])
    batch = pack(rows, [group])
    policy = Policy(small, banned_token_ids=backbone.banned_token_ids, temperature=1.0, logits_chunk=64)
    before = policy(batch).logprobs_T
    before.sum().backward()
    assert all(value.grad is not None for value in small.parameters() if value.requires_grad)
    learn_something(small)
    assert torch.equal(PolicyAtStart(policy)(batch), before.detach())
    assert not torch.allclose(policy(batch).logprobs_T, before, atol=1e-2)


def test_the_counted_bits_equal_the_stored_bits(quantized) -> None:
    backbone, small = quantized
    bits = backbone.weight_bits(backbone.outline())
    held = {name: value for name, value in small.named_parameters() if value.dtype == torch.uint8}
    assert set(bits) == set(held)
    for name, value in held.items():
        state = value.quant_state
        scales = [state.absmax, state.state2.absmax]  # the 256 values of each code are shared, or nearly nothing
        count = state.shape.numel()
        stored = 8 * sum(tensor.numel() * tensor.element_size() for tensor in [value, *scales])
        assert stored / count == pytest.approx(bits[name], rel=0.01), name


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(adapters, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(
        ConfigError, match=r"peft\.quantize needs bitsandbytes: pip install 'grit-lightning\[quantize\]'"
    ):
        lora(quantize="nf4")
