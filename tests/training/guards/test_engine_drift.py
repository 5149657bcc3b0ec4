"""Tests of the comparison of an engine's log-probabilities with the policy's, against values computed by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from grit_lightning.errors import StaleEngineError
from grit_lightning.training.guards.engine_drift import EngineDrift
from grit_lightning.types import Completion, Group

ENGINE = (-1.0, -2.0, -0.5)
POLICY = torch.tensor([-1.0, -1.0, -1.0])
CPU = torch.device("cpu")


def drift(max_drift: float = 1.0, **options: Any) -> EngineDrift:
    completions = (
        Completion((5, 6), "ab", "eos", (), logprobs=ENGINE[:2]),
        Completion((7,), "c", "eos", (), logprobs=ENGINE[2:]),
    )
    objective = SimpleNamespace(**({"engine_correction": "token_truncate", "engine_cap": 2.0} | options))
    return EngineDrift([Group(0, None, completions)], objective, max_drift, CPU)  # type: ignore[arg-type]


BATCH: Any = SimpleNamespace(token_T=torch.arange(3), completion_T=torch.tensor([0, 0, 1]))


def test_metrics_are_those_computed_by_hand() -> None:
    watch = drift()
    assert watch.weights(BATCH, POLICY).tolist() == pytest.approx([1.0, 2.0, math.exp(-0.5)])
    watch.add(BATCH, POLICY)
    watch.check(1, SingleDeviceStrategy(CPU))
    differences = (0.0, 1.0, -0.5)
    assert watch.metrics() == pytest.approx(
        {
            "rollout/engine_drift": 0.5,
            "rollout/engine_ratio": sum(map(math.exp, differences)) / 3,
            "rollout/engine_ratio_max": math.e,
            "rollout/engine_kl": sum(math.exp(d) - 1 - d for d in differences) / 3,
            "rollout/engine_bounded": 1 / 3,
        }
    )


def test_tokens_are_found_wherever_the_micro_batch_has_them() -> None:
    turned: Any = SimpleNamespace(token_T=torch.tensor([2, 0]), completion_T=torch.tensor([1, 0]))
    assert drift().weights(turned, torch.tensor([-1.0, -1.0])).tolist() == pytest.approx([math.exp(-0.5), 1.0])


def test_a_drift_beyond_the_bound_names_step_size_and_key() -> None:
    watch = drift(max_drift=0.25)
    watch.add(BATCH, POLICY)
    with pytest.raises(
        StaleEngineError, match=r"step 7: .* by 0.5 on average, more than rollout.engine.max_drift=0.25"
    ):
        watch.check(7, SingleDeviceStrategy(CPU))


def test_numbers_that_are_not_finite_are_left_to_the_guard_of_updates() -> None:
    watch = drift()
    watch.add(BATCH, torch.full((3,), math.nan))
    watch.check(1, SingleDeviceStrategy(CPU))


def test_a_step_that_trains_on_nothing_has_no_metrics() -> None:
    watch = drift()
    watch.check(1, SingleDeviceStrategy(CPU))
    assert watch.metrics() == {}
