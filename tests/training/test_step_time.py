"""Tests of the least seconds of a step: operations against torch's counter at real size, floors by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from grit_lightning.model.policy import Policy
from grit_lightning.training.memory import StepSize
from grit_lightning.training.step_time import ModelSize, Rates, decode_bytes, floors, measure, operations

STEP = StepSize(
    prompts=4, generations=2, prompt_tokens=10, image_tokens=4, new_tokens=6, max_sequences=4, max_tokens_per_pass=100,
    logits_chunk=8,
)  # fmt: skip
MODEL = ModelSize(language=100, vision=50, head=30, parameters=200, layers=2, width=8, cached=16)


def test_operations_and_bytes_by_hand() -> None:
    vision, prompt = 2 * 50 * 16, 2 * 100 * 10 + 2 * 8 * 2 * 100
    completions = 12 * (2 * 130 + 4 * 8 * 2 * 13)
    forward = 4 * (vision + prompt + completions)
    assert operations(STEP, MODEL, recompute=False) == {
        "rollout": forward, "reference": forward, "update": 3 * forward,
    }  # fmt: skip
    assert operations(STEP, MODEL, recompute=True)["update"] == 4 * forward
    # Two batches of 4 completions read the weights once for each of 6 tokens.
    assert decode_bytes(STEP, MODEL, 2) == 2 * 6 * (2 * 130 + 4 * (10 + 6) * 16)


def test_a_phase_takes_at_least_the_larger_of_its_floors() -> None:
    counted = operations(STEP, MODEL, recompute=True)
    fast = floors(STEP, MODEL, Rates(products=1e3, copies=1e12), width=2, reference=True, recompute=True)
    assert fast == {phase: count / 1e3 for phase, count in counted.items()}
    slow = floors(STEP, MODEL, Rates(products=1e12, copies=10.0), width=2, reference=False, recompute=True)
    assert slow == {"rollout": decode_bytes(STEP, MODEL, 2) / 10, "update": counted["update"] / 1e12}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3b", "internvl2b", "qwen3vl_4b"])
def test_operations_are_those_that_torch_counts_at_real_size(recipe, name: str) -> None:
    made = recipe(name)
    prompt, model = made.prompt(), made.model()
    batch = made.first_pass(prompt, length=100)
    with made.mode, torch.no_grad():
        policy = Policy(model, banned_token_ids=(1,), temperature=1.0, logits_chunk=1024)
        with FlopCounterMode(display=False) as counter:
            policy(batch)
    step = StepSize(
        prompts=len(batch.rows), generations=4, prompt_tokens=prompt.num_tokens, new_tokens=100,
        image_tokens=made.backbone.count_image_tokens(prompt), max_sequences=1, max_tokens_per_pass=1, logits_chunk=1,
    )  # fmt: skip
    counted = operations(step, ModelSize.of(model), recompute=False)["reference"]
    # Projectors count as if they ran on patches, and torch's counter leaves variable-length attention out.
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.16)


def test_rates_are_measured_on_the_device_at_hand() -> None:
    rates = measure(torch.device("cpu"), torch.float32)
    assert 1e8 < rates.products < 1e14
    assert 1e8 < rates.copies < 1e13
