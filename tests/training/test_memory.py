"""Tests of the memory estimate: real sizes on the meta device, and each part against a direct count."""

from __future__ import annotations

import dataclasses
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from grit_lightning.training.memory import Setup, StepSize, estimate, peak_memory_gib, peak_rss_gib
from support.released import INTERNVL3_2B, MAKERS, QWEN2_5_VL_3B, TINY, full_size

GIB = 2**30
STEP = StepSize(
    prompts=32, generations=4, prompt_tokens=400, image_tokens=256, new_tokens=1000, max_sequences=128,
    max_tokens_per_pass=8192, logits_chunk=1024,
)  # fmt: skip
SETUP = Setup(reference=True, optimizer_values=2.0, bf16=True, gradient_checkpointing=True, shards=1)


@pytest.fixture
def real(compose_config, tmp_path: Path):
    """Return a function that builds a backbone of a real size without its weights."""

    def make(family: str, *overrides: str):
        sizes = {"qwen2_5_vl": QWEN2_5_VL_3B, "internvl": INTERNVL3_2B}[family]
        tiny = TINY if family == "qwen2_5_vl" else MAKERS[family](tmp_path / "tiny")
        folder = full_size(tmp_path / "real", source=tiny, **sizes)
        options = ("model=pretrained", f"model.checkpoint={folder}", "model.random_weights_seed=null")
        return instantiate(compose_config(*options, *overrides).model)

    return make


@pytest.mark.parametrize(("family", "billions"), [("qwen2_5_vl", 3.75), ("internvl", 2.09)])
def test_the_estimate_of_real_models_counts_every_parameter(real, family: str, billions: float) -> None:
    model = real(family).outline()
    count = sum(value.numel() for value in model.parameters())
    assert count / 1e9 == pytest.approx(billions, abs=0.005)
    assert {value.device.type for value in model.parameters()} == {"meta"}
    parts = estimate(model, STEP, SETUP)
    assert parts["weights"] == parts["reference"] == parts["gradients"] == 4 * count
    assert parts["optimizer"] == 8 * count
    assert parts["peak"] > 20 * count


def test_with_adapters_only_they_have_gradients_and_optimizer_states(real) -> None:
    model = real("qwen2_5_vl", "peft=lora", "model.dtype=bfloat16").outline()
    total = sum(value.numel() for value in model.parameters())
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert 0.01 < trained / total < 0.05
    parts = estimate(model, STEP, dataclasses.replace(SETUP, reference=False))
    assert parts["weights"] == 2 * (total - trained) + 4 * trained
    assert (parts["reference"], parts["gradients"], parts["optimizer"]) == (0, 4 * trained, 8 * trained)


def test_sharding_divides_weights_and_states_but_not_activations(backbone) -> None:
    one, four = (estimate(backbone.outline(), STEP, dataclasses.replace(SETUP, shards=shards)) for shards in (1, 4))
    for name in ("weights", "reference", "gradients", "optimizer"):
        assert four[name] == one[name] / 4
    for name in ("activations", "logits", "cache of keys and values"):
        assert four[name] == one[name]


@torch.no_grad()
def test_the_estimated_key_value_cache_equals_that_of_a_rollout(backbone, prompts) -> None:
    model = backbone.load_model()
    step = dataclasses.replace(STEP, prompts=1, generations=2, prompt_tokens=prompts[0].num_tokens, new_tokens=0)
    cache = model.model(
        input_ids=prompts[0].input_ids_S[None].repeat(2, 1),
        position_ids=prompts[0].position_ids_A_S[:, None].repeat(1, 2, 1),
        use_cache=True,
        **{key: torch.cat([value, value]) for key, value in prompts[0].vision.items()},
    ).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    layers = len(cache.layers)
    fp32 = dataclasses.replace(SETUP, bf16=False)
    assert estimate(model, step, fp32)["cache of keys and values"] == held * (layers + 1) / layers


def test_rows_and_sequences_of_a_step_by_hand() -> None:
    assert STEP.row_tokens == 4400
    assert STEP.rows == 1
    assert STEP.sequences == 128
    assert dataclasses.replace(STEP, max_tokens_per_pass=100).row_tokens == 1400
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
