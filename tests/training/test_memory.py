"""Tests of the memory estimate: beside the traced peak of real-size models, and each part against a direct count."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.model.policy import Policy
from grit_lightning.model.reference import Reference
from grit_lightning.rollout.choice import Draw
from grit_lightning.rollout.decoding import _Batch, _prefill
from grit_lightning.rollout.shared_prompt_cache import SharedPromptCache
from grit_lightning.rollout.static_memory import StaticMemory
from grit_lightning.tasks.validate import setup
from grit_lightning.training.memory import Setup, StepSize, estimate, peak_memory_gib, peak_rss_gib
from grit_lightning.types import Prompt
from support.decoded import After
from support.fake_gpu import LiveBytes, fake_vision, watch_model
from support.real_size import RECIPES, Recipe
from support.released import INTERNVL3_2B, MAKERS, QWEN2_5_VL_3B, TINY, full_size

GIB = 2**30
STEP = StepSize(
    prompts=32, generations=4, prompt_tokens=400, image_tokens=256, new_tokens=1000, max_sequences=128,
    max_tokens_per_pass=8192, logits_chunk=1024,
)  # fmt: skip
SETUP = Setup(reference=True, state_bytes=6.0, autocast=False, gradient_checkpointing=True, shards=1)
GB = 1e9

TARGETS = {"qwen3b": 60, "qwen3b_lora": 18, "qwen7b_lora": 32, "internvl2b": 45, "qwen3vl_4b": 80}
"""GB that each recipe may need on one GPU."""


def step_size(recipe: Recipe) -> StepSize:
    rollout, module, prompt = recipe.values["rollout"], recipe.values["module"], recipe.prompt()
    return StepSize(
        prompts=recipe.values["data"]["prompts_per_step"],
        generations=rollout["num_generations"],
        prompt_tokens=prompt.num_tokens,
        image_tokens=recipe.backbone.count_image_tokens(prompt),
        new_tokens=rollout["max_new_tokens"],
        max_sequences=rollout["max_sequences"],
        max_tokens_per_pass=module["max_tokens_per_pass"],
        logits_chunk=module["logits_chunk"],
    )


def traced(recipe: Recipe, step: StepSize) -> dict[str, float]:
    """Return peaks of live bytes: of a rollout, and of updates with completions of several lengths."""
    prompt, model = recipe.prompt(), recipe.model()
    with recipe.mode, LiveBytes() as live:
        watch_model(live, model)
        policy = Policy(model, banned_token_ids=(1, 2), temperature=0.9, logits_chunk=step.logits_chunk)
        if recipe.values["peft"] is None:
            reference = Reference(Policy(recipe.model(), banned_token_ids=(1,), temperature=0.9, logits_chunk=1))
            watch_model(live, reference)
        trained = [(name, value) for name, value in policy.named_parameters() if value.requires_grad]
        optimizer = instantiate(recipe.values["optimizer"])(trained)
        for _, value in trained:
            optimizer._begin(value, optimizer.state[value])
        memory = StaticMemory()
        peaks = {"rollout": rollout(recipe, policy.eval(), prompt, step, memory, live)}
        policy.train()
        for length in (300, 20):
            batch = recipe.first_pass(prompt, length)
            live.peak = live.live
            for _ in range(2):  # in the second pass there are gradients already
                policy(batch).logprobs_T.sum().backward()
            peaks[f"update of {length} tokens"] = live.peak
            for _, value in trained:
                value.grad = None
    return peaks


@torch.no_grad()
def rollout(
    recipe: Recipe, policy: Policy, prompt: Prompt, step: StepSize, memory: StaticMemory, live: LiveBytes
) -> float:
    """Return the peak of a prefill and a decoding step, whose cache stays in ``memory``."""
    count, cpu = step.sequences, torch.device("cpu")
    prompts = [dataclasses.replace(prompt, vision=fake_vision(dict(prompt.vision), recipe.mode))]
    prompts *= count // step.generations
    lengths = [prompt.num_tokens for _ in prompts]
    live.peak = live.live
    cache = SharedPromptCache(lengths, step.generations, step.new_tokens, memory=memory, device=cpu, static=True)
    logits_P_V = _prefill(policy.model, prompts, cache)
    draw, ends = Draw(0.9, 0, 1.0, (1, 2)), After((step.new_tokens,) * count)
    keys = torch.zeros(count, dtype=torch.long)
    batch = _Batch(policy.model, cache, prompts, keys, step.new_tokens, draw, ends)
    batch.draw(logits_P_V.repeat_interleave(step.generations, dim=0))
    cache.make_room()
    batch.step()
    return live.peak


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_the_estimate_is_within_a_tenth_of_the_traced_peak_and_of_the_target(recipe, monkeypatch, name: str) -> None:
    # On a GPU, the choice of a token is one kernel that keeps nothing (test_noise).
    monkeypatch.setattr("grit_lightning.rollout.choice.draw_tokens", lambda logits, *_, **__: logits.argmax(dim=-1))
    made = recipe(name)
    step, model = step_size(made), made.backbone.outline()
    parts = estimate(model, step, setup(made.values, model, made.backbone.weight_bits(model)))
    peaks = traced(made, step)
    assert parts["peak"] == pytest.approx(max(peaks.values()), rel=0.1)
    assert parts["peak"] <= TARGETS[name] * GB


def test_the_3b_recipe_on_eight_gpus_needs_at_most_24_gb_each(recipe) -> None:
    made = recipe("qwen3b", "strategy=fsdp", "trainer.devices=8")
    model = made.backbone.outline()
    step = dataclasses.replace(step_size(made), prompts=4)
    needs = setup(made.values, model, {})
    assert needs.shards == 8
    assert estimate(model, step, needs)["peak"] <= 24 * GB


@pytest.fixture
def real(compose_config, tmp_path: Path):
    """Return a function that builds a backbone of a real size without its weights."""

    def make(family: str, *overrides: str):
        sizes = {"qwen2_5_vl": QWEN2_5_VL_3B, "internvl": INTERNVL3_2B}[family]
        tiny = TINY if family == "qwen2_5_vl" else MAKERS[family](tmp_path / "tiny")
        folder = full_size(tmp_path / "real", source=tiny, **sizes)
        options = (
            "model=pretrained",
            f"model.checkpoint={folder}",
            "model.dtype=bfloat16",
            "model.random_weights_seed=null",
        )
        return instantiate(compose_config(*options, *overrides).model)

    return make


@pytest.mark.parametrize(("family", "billions"), [("qwen2_5_vl", 3.75), ("internvl", 2.09)])
def test_the_estimate_of_real_models_counts_every_parameter(real, family: str, billions: float) -> None:
    model = real(family).outline()
    count = sum(value.numel() for value in model.parameters())
    assert count / 1e9 == pytest.approx(billions, abs=0.005)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    parts = estimate(model, STEP, SETUP)
    assert parts["weights"] == parts["reference"] == parts["gradients"] == 2 * count
    assert parts["optimizer"] == 6 * count
    assert parts["peak"] > 12 * count


def test_with_adapters_only_they_have_gradients_and_optimizer_states(real) -> None:
    model = real("qwen2_5_vl", "peft=lora").outline()
    total = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert 0.01 < trained / total < 0.05
    parts = estimate(model, STEP, dataclasses.replace(SETUP, reference=False))
    assert parts["weights"] == 2 * total
    assert (parts["reference"], parts["gradients"], parts["optimizer"]) == (0, 2 * trained, 6 * trained)


def test_sharding_divides_weights_and_states_but_not_activations(backbone) -> None:
    one, four = (estimate(backbone.outline(), STEP, dataclasses.replace(SETUP, shards=shards)) for shards in (1, 4))
    for name in ("weights", "reference", "gradients", "optimizer"):
        assert four[name] == one[name] / 4
    for name in ("activations", "cache of keys and values"):
        assert four[name] == one[name]


def test_an_engine_takes_the_place_of_cache_and_gathered_weights_and_sleeps_in_the_update(backbone) -> None:
    model = backbone.outline()
    held = ("weights", "reference", "optimizer")
    for sleeps in (True, False):
        needs = dataclasses.replace(SETUP, shards=4, engine=50 * GIB, engine_sleeps=sleeps)
        parts, plain = estimate(model, STEP, needs), estimate(model, STEP, dataclasses.replace(SETUP, shards=4))
        assert (parts["engine"], parts["cache of keys and values"]) == (50 * GIB, 0)
        update = plain["peak"] - plain["cache of keys and values"]  # of this model, an update needs more than a rollout
        rollout = 50 * GIB + sum(parts[name] for name in held)
        assert parts["peak"] == pytest.approx(rollout if sleeps else update + 50 * GIB)


@torch.no_grad()
def test_the_estimated_key_value_cache_equals_that_of_a_rollout(backbone, prompts) -> None:
    model = backbone.load_model()
    step = dataclasses.replace(STEP, prompts=1, generations=2, prompt_tokens=prompts[0].num_tokens)
    step = dataclasses.replace(step, new_tokens=step.prompt_tokens)
    cache = model.model(
        input_ids=prompts[0].input_ids_S[None].repeat(2, 1),
        position_ids=prompts[0].position_ids_A_S[:, None].repeat(1, 2, 1),
        use_cache=True,
        **{key: torch.cat([value, value]) for key, value in prompts[0].vision.items()},
    ).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    # The prompt is held once, and as much for each of two completions as long as the prompt.
    assert estimate(model, step, SETUP)["cache of keys and values"] == held / 2 * 3


def test_sizes_of_a_step_by_hand() -> None:
    assert STEP.positions == 8192
    assert STEP.images == 20
    assert STEP.sequences == 128
    assert dataclasses.replace(STEP, max_tokens_per_pass=100).positions == 1400
    assert dataclasses.replace(STEP, prompts=1).positions == 4400
    assert dataclasses.replace(STEP, prompts=1).images == 1
    assert dataclasses.replace(STEP, max_sequences=10).sequences == 8


def test_peak_rss_grows_by_the_touched_memory_and_does_not_fall():
    # A process of its own: here the peak may have been reached long before, and would not grow.
    program = (
        "from grit_lightning.training.memory import peak_rss_gib as peak\n"
        "before = peak(); block = bytearray(b'x') * 2**28; during = peak(); del block\n"
        "print(before, during, peak())"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    before, during, after = map(float, output.stdout.split())
    assert during - before == pytest.approx(0.25, abs=0.02)
    assert after == pytest.approx(during, abs=0.02)
    assert before < 0.2


def test_on_a_cpu_the_peak_is_the_resident_set_of_the_process():
    # In a process of its own, against what the block adds and what the system says of the process afterwards.
    program = (
        "import torch\n"
        "from pathlib import Path\n"
        "from grit_lightning.training.memory import peak_memory_gib as peak\n"
        "cpu = torch.device('cpu'); before = peak(cpu); block = torch.ones(2**26); del block; after = peak(cpu)\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(before, after, int(status.partition('VmHWM:')[2].split()[0]) / 2**20)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    before, after, by_the_system = map(float, output.stdout.split())
    assert after - before == pytest.approx(0.25, abs=0.02)
    assert after == pytest.approx(by_the_system, abs=0.01)


def test_on_a_gpu_the_peak_is_that_of_allocated_tensors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30 if device.index == 1 else 0)
    assert peak_memory_gib(torch.device("cuda", 1)) == 3.0


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("linux", 1024)])
def test_without_proc_the_peak_comes_from_getrusage_in_platform_units(monkeypatch, platform, unit):
    def refuse(self):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(sys, "platform", platform)
    usage = type("Usage", (), {"ru_maxrss": 3 * 2**30 // unit})
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert peak_rss_gib() == 3.0
