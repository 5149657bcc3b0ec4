"""Tests of MuonAdamW: against Muon and AdamW used separately, after a restart, and under a schedule."""

from __future__ import annotations

import copy

import torch
from torch import nn

from grit_lightning.training.optimizers.muon import MuonAdamW, is_hidden_matrix

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
