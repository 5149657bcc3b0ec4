"""Tests of the optimizers and schedules: MuonAdamW, 8-bit AdamW and the piecewise linear schedule."""

from __future__ import annotations

import copy

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from grit_lightning.errors import ConfigError
from grit_lightning.training import optimizers
from grit_lightning.training.optimizers import MuonAdamW, adamw_8bit, is_hidden_matrix, piecewise_linear

OPTIONS = {"lr": 0.02, "adamw_lr": 0.003, "momentum": 0.9, "betas": (0.9, 0.95), "weight_decay": 0.01}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(7, 6)
        self.conv = nn.Conv1d(6, 6, 3, padding=1)
        self.hidden = nn.Linear(6, 4)
        self.lm_head = nn.Linear(4, 7, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.embed_tokens(ids).mT).mT
        return self.lm_head(self.hidden(x).relu())


def train(net: nn.Module, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
    for step in steps:
        ids = torch.randint(7, (5, 4), generator=torch.Generator().manual_seed(step))
        net.zero_grad()
        nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.flatten()).backward()
        for optimizer in optimizers:
            optimizer.step()


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_muon_updates_only_hidden_matrices() -> None:
    assert [name for name, value in net().named_parameters() if is_hidden_matrix(name, value)] == ["hidden.weight"]


def test_updates_equal_those_of_muon_and_adamw_used_separately() -> None:
    one, two = net(), net()
    together = MuonAdamW(one.named_parameters(), **OPTIONS)
    others = [value for name, value in two.named_parameters() if name != "hidden.weight"]
    apart = [
        torch.optim.Muon([two.hidden.weight], lr=0.02, momentum=0.9, weight_decay=0.01),
        torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    train(one, [together], range(5))
    train(two, apart, range(5))
    for (name, first), second in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second), name


def test_training_from_a_saved_state_equals_uninterrupted_training() -> None:
    whole, stopped = net(), net()
    optimizer = MuonAdamW(whole.named_parameters(), **OPTIONS)
    train(whole, [optimizer], range(6))
    first = MuonAdamW(stopped.named_parameters(), **OPTIONS)
    train(stopped, [first], range(3))
    saved = copy.deepcopy(first.state_dict())
    second = MuonAdamW(stopped.named_parameters(), **OPTIONS)
    second.load_state_dict(saved)
    train(stopped, [second], range(3, 6))
    for left, right in zip(whole.parameters(), stopped.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_schedule_scales_both_learning_rates() -> None:
    optimizer = MuonAdamW(net().named_parameters(), **OPTIONS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.0015]


ADAMW = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def test_adamw_of_8_bits_follows_adamw_of_32_in_a_quarter_of_the_memory() -> None:
    pytest.importorskip("bitsandbytes")
    weights = [nn.Parameter(torch.randn(64, 128, generator=torch.Generator().manual_seed(0))) for _ in range(2)]
    small, plain = adamw_8bit([("weight", weights[0])], **ADAMW), torch.optim.AdamW(weights[1:], **ADAMW)
    for step in range(5):
        gradient = torch.randn(64, 128, generator=torch.Generator().manual_seed(step))
        for weight, optimizer in zip(weights, (small, plain), strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    change = weights[1].detach() - torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    assert (weights[0] - weights[1]).abs().mean() < 0.05 * change.abs().mean()
    kept = [value.nbytes for value in small.state[weights[0]].values() if isinstance(value, torch.Tensor)]
    assert sum(kept) < 0.3 * 2 * weights[0].nbytes + 2 * 256 * 4  # and the values of each code


def test_without_bitsandbytes_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(optimizers, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ConfigError, match=r"optimizer=adamw8bit needs bitsandbytes: pip install"):
        adamw_8bit([], **ADAMW)


def rates(steps: int, points: list[list[float]]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = piecewise_linear(optimizer, points=points)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_schedule_follows_lines_between_the_points_and_a_jump() -> None:
    points = [[1, 0.0], [3, 1.0], [5, 0.5], [5, 0.8], [7, 0.0]]
    assert rates(9, points) == pytest.approx([0, 0, 1, 2, 1.5, 1.6, 0.8, 0, 0])


def test_a_schedule_of_one_point_is_a_constant() -> None:
    assert rates(3, [[10, 0.5]]) == [1, 1, 1]


@pytest.mark.parametrize("points", [[], [[5, 1.0], [4, 0.0]]])
def test_steps_that_do_not_ascend_are_refused(points: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="in ascending order"):
        rates(1, points)


def test_the_piecewise_linear_config_builds_a_schedule(compose_config) -> None:
    schedule = instantiate(compose_config("scheduler=piecewise_linear").scheduler)
    assert schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)).get_last_lr() == [2.0]
