"""Tests of AdamW on bf16 weights: against float32 AdamW, over many small updates, and after a restart."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hydra.utils import instantiate
from torch.nn import Parameter

from grit_lightning.errors import CheckpointError, ConfigError
from grit_lightning.training.optimizers import moments
from grit_lightning.training.optimizers.adamw import SplitAdamW, adamw

OPTIONS = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
KINDS = ["float32", "bfloat16", "int8"]
SHAPE = (96, 130)  # more values than 8-bit moments need, and no multiple of their block


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "int8":
        pytest.importorskip("bitsandbytes")
    return request.param


def start() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).bfloat16()


def gradient(step: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(step + 1)).bfloat16()


def train(weight: Parameter, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        weight.grad = gradient(step).to(weight.dtype)
        optimizer.step()


def master(optimizer: torch.optim.Optimizer, weight: Parameter) -> torch.Tensor:
    from grit_lightning.training.optimizers.masters import join

    return join(weight.detach(), optimizer.state[weight]["remainder"])


def test_all_in_float32_it_is_torchs_own() -> None:
    optimizer = adamw([("weight", Parameter(start().float()))], **OPTIONS, moments="float32")
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.param_groups[0]["fused"] is True
    assert optimizer.param_groups[0]["param_names"] == ["weight"]


def test_with_float32_moments_the_masters_follow_adamw_in_float32() -> None:
    wide, narrow = Parameter(start().float()), Parameter(start())
    train(wide, torch.optim.AdamW([wide], **OPTIONS), range(20))
    optimizer = adamw([("weight", narrow)], **OPTIONS, moments="float32")
    train(narrow, optimizer, range(20))
    assert torch.allclose(master(optimizer, narrow), wide, rtol=1e-6, atol=1e-7)
    assert torch.equal(narrow, master(optimizer, narrow).bfloat16())


def test_other_moments_follow_it_closely(kind: str) -> None:
    wide, narrow = Parameter(start().float()), Parameter(start())
    train(wide, torch.optim.AdamW([wide], **OPTIONS), range(20))
    optimizer = adamw([("weight", narrow)], **OPTIONS, moments=kind)
    train(narrow, optimizer, range(20))
    change = wide.detach() - start().float()
    error = (master(optimizer, narrow) - wide).norm() / change.norm()
    assert error < {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.05}[kind]


def test_float32_weights_may_have_narrow_moments_and_need_no_remainder() -> None:
    wide, other = Parameter(start().float()), Parameter(start().float())
    train(wide, torch.optim.AdamW([wide], **OPTIONS), range(20))
    optimizer = adamw([("weight", other)], **OPTIONS, moments="bfloat16")
    train(other, optimizer, range(20))
    assert set(optimizer.state[other]) == {"step", "exp_avg", "exp_avg_sq"}
    assert (other - wide).norm() / (wide - start().float()).norm() < 0.01


def test_updates_of_a_millionth_do_not_vanish(kind: str) -> None:
    options = {**OPTIONS, "lr": 1e-6, "weight_decay": 0.0}
    wide, narrow = Parameter(torch.ones(SHAPE)), Parameter(torch.ones(SHAPE, dtype=torch.bfloat16))
    plain, optimizer = torch.optim.AdamW([wide], **options), adamw([("weight", narrow)], **options, moments=kind)
    for step in range(200):
        for weight, one in ((wide, plain), (narrow, optimizer)):
            weight.grad = (1 + 0.5 * gradient(step).float()).to(weight.dtype)  # one sign, mostly, and noise
            one.step()
    change, expected = master(optimizer, narrow) - 1, wide.detach() - 1
    assert expected.mean() == pytest.approx(-2e-4, rel=0.2)
    bound = 0.05 if kind == "int8" else 0.01
    assert change.mean() == pytest.approx(expected.mean().item(), rel=bound)
    assert (change - expected).norm() < bound * expected.norm()


def test_training_from_a_saved_state_equals_uninterrupted_training_bit_by_bit(kind: str) -> None:
    whole, stopped = Parameter(start()), Parameter(start())
    optimizer = adamw([("weight", whole)], **OPTIONS, moments=kind)
    train(whole, optimizer, range(6))
    first = adamw([("weight", stopped)], **OPTIONS, moments=kind)
    train(stopped, first, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = adamw([("weight", stopped)], **OPTIONS, moments=kind)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert {key: value.dtype for key, value in second.state[stopped].items()} == {
        key: value.dtype for key, value in first.state[stopped].items()
    }
    train(stopped, second, range(3, 6))
    assert torch.equal(whole, stopped)
    for key, value in optimizer.state[whole].items():
        same = value.flatten().view(torch.uint8), second.state[stopped][key].flatten().view(torch.uint8)
        assert torch.equal(*same), key  # by bits, because those of a remainder may spell NaN


def test_the_state_of_another_optimizer_is_refused() -> None:
    weight = Parameter(start())
    sgd = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    train(weight, sgd, range(1))
    state = copy.deepcopy(sgd.state_dict())
    with pytest.raises(CheckpointError, match="not the one of the config"):
        adamw([("weight", weight)], **OPTIONS, moments="bfloat16").load_state_dict(state)


@pytest.mark.parametrize(("kept", "bytes_"), [("float32", 10.0), ("bfloat16", 6.0), ("int8", 4.03)])
def test_bytes_of_the_state_of_a_bf16_weight(kept: str, bytes_: float) -> None:
    if kept == "int8":
        pytest.importorskip("bitsandbytes")
    weight = Parameter(torch.ones(256, 256, dtype=torch.bfloat16))
    optimizer = adamw([("weight", weight)], **OPTIONS, moments=kept)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    held = sum(value.nbytes for value in optimizer.state[weight].values() if value.numel() > 1)
    assert held / weight.numel() == pytest.approx(bytes_, abs=0.01)


def test_large_parameters_are_updated_in_chunks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = Parameter(start()), Parameter(start())
    train(whole, adamw([("weight", whole)], **OPTIONS, moments="float32"), range(3))
    monkeypatch.setattr("grit_lightning.training.optimizers.adamw.CHUNK", 1024)
    train(parts, adamw([("weight", parts)], **OPTIONS, moments="float32"), range(3))
    assert torch.equal(whole, parts)


def test_parameters_without_a_gradient_are_left_alone() -> None:
    weight = Parameter(start())
    optimizer = adamw([("weight", weight)], **OPTIONS, moments="bfloat16")
    optimizer.step()
    assert torch.equal(weight, start())
    assert not optimizer.state[weight]


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ConfigError, match=r"optimizer\.moments=int8 needs bitsandbytes: pip install"):
        adamw([("weight", Parameter(start()))], **OPTIONS, moments="int8")


@pytest.mark.parametrize(("option", "kept"), [("adamw", "float32"), ("adamw8bit", "int8")])
def test_the_configs_build_it(compose_config, option: str, kept: str) -> None:
    if kept == "int8":
        pytest.importorskip("bitsandbytes")
    optimizer = instantiate(compose_config(f"optimizer={option}").optimizer)([("weight", Parameter(start()))])
    assert isinstance(optimizer, SplitAdamW)
    assert optimizer.moments == kept
