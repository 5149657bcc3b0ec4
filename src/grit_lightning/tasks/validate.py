"""``task=validate``: check a data set for a model; print its contents, its problems, and what a step takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.nn import Parameter
from transformers import PreTrainedModel

from grit_lightning.app.error_lines import one_line
from grit_lightning.app.startup import prepare
from grit_lightning.data.checks import FileCheck, describe
from grit_lightning.data.file_datamodule import GroundedQADataModule
from grit_lightning.model.adapters import has_adapters, trained_sentence
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.system.tables import record_table
from grit_lightning.training.memory import Setup, StepSize, estimate
from grit_lightning.training.step_time import ModelSize, floors, measure

GB = 10**9
"""Bytes of a gigabyte."""


def validate_data(cfg: DictConfig) -> list[FileCheck]:
    """Print a table of the data set, estimates of memory and time, and all problems; exit with status 1 if any.

    Returns:
        The contents and problems of each data file.

    Raises:
        UserError: the config, the model's tokenizer or the data folder cannot be used.
    """
    values = prepare(cfg)
    backbone: Backbone = instantiate(values["model"])
    datamodule: GroundedQADataModule = instantiate(values["data"])
    datamodule.attach(backbone.encode, backbone.count_image_tokens)
    checks = datamodule.check()
    print(f"model {backbone.checkpoint}; ranges are minimum / median / maximum\n")
    print(f"{record_table([describe(check) for check in checks])}\n")
    if any(check.prompt_tokens for check in checks):
        model, step = backbone.outline(), step_size(values, checks)
        needs = setup(values, model, backbone.weight_bits(model))
        print(f"{trained_sentence(model)}\n\n{memory(model, step, needs)}\n\n{seconds(model, step, needs)}\n")
    problems = [problem for check in checks for problem in check.problems]
    for problem in problems:
        print(one_line(problem))
    print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}")
    if problems:
        sys.exit(1)
    return checks


def memory(model: PreTrainedModel, step: StepSize, needs: Setup) -> str:
    """Return a text about the memory per device: what training needs by part, and what this one has."""
    parts = estimate(model, step, needs)
    peak = parts.pop("peak")
    lines = [f"{name:<26}{size / GB:9.2f} GB" for name, size in parts.items() if size >= 2**20]
    name, available = _device_memory()
    fits = "it fits" if peak < available else "it does not fit: see Out of memory in docs/troubleshooting.md"
    verdict = f"estimated peak on each device: {peak / GB:.1f} GB; {name} has {available / GB:.1f} GB: {fits}"
    return "\n".join([*lines, "", verdict])


def seconds(model: PreTrainedModel, step: StepSize, needs: Setup) -> str:
    """Return a text about the least seconds of a step on the device at hand, by phase, from its measured rates."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if needs.autocast else model.get_output_embeddings().weight.dtype
    rates = measure(device, dtype)
    phases = floors(
        step,
        ModelSize.of(model),
        rates,
        width=dtype.itemsize,
        reference=needs.reference or has_adapters(model),
        recompute=needs.gradient_checkpointing,
    )
    shown = ", ".join(f"{phase} {value:.1f}" for phase, value in phases.items())
    return (
        f"a step with completions of {step.new_tokens} tokens takes more than {sum(phases.values()):.1f} s ({shown}), "
        f"at {rates.products / 1e12:.2g} TFLOP/s and {rates.copies / GB:.0f} GB/s, which were measured here; "
        "expect at least twice that"
    )


def step_size(values: Mapping[str, Any], checks: Sequence[FileCheck]) -> StepSize:
    """Return the sizes of a step on one device, with the longest prompt and the largest image of the data set."""
    rollout, module = values["rollout"], values["module"]
    return StepSize(
        prompts=-(-values["data"]["prompts_per_step"] // _devices(values)),
        generations=rollout["num_generations"],
        prompt_tokens=max(length for check in checks for length in check.prompt_tokens),
        image_tokens=max(length for check in checks for length in check.image_tokens),
        new_tokens=rollout["max_new_tokens"],
        max_sequences=rollout["max_sequences"],
        max_tokens_per_pass=module["max_tokens_per_pass"],
        logits_chunk=module["logits_chunk"],
    )


def setup(values: Mapping[str, Any], model: PreTrainedModel, weight_bits: Mapping[str, float]) -> Setup:
    """Return the settings of the config that determine what a training holds in memory.

    Args:
        values: the resolved config.
        model: the model, adapters included; its device may be ``meta``.
        weight_bits: bits per stored weight, from :meth:`~Backbone.weight_bits`.
    """
    strategy = values["trainer"]["strategy"]
    sharded = isinstance(strategy, Mapping) and strategy["_target_"].endswith("FSDPStrategy")
    trained = next(value.dtype for value in model.parameters() if value.requires_grad)
    return Setup(
        reference=values["objective"]["beta"] > 0 and values["peft"] is None,
        state_bytes=_state_bytes(instantiate(values["optimizer"]), trained),
        autocast=values["trainer"]["precision"] == "bf16-mixed",
        gradient_checkpointing=values["model"]["gradient_checkpointing"],
        shards=_devices(values) if sharded else 1,
        weight_bits=weight_bits,
        engine=_engine_bytes(values["rollout"].get("engine"), model),
        engine_sleeps=torch.cuda.is_available() and bool((values["rollout"].get("engine") or {}).get("sleep")),
    )


def _engine_bytes(engine: Mapping[str, Any] | None, model: PreTrainedModel) -> float:
    """Return the memory of an engine in place of the policy: its share of a GPU, or its weights and its cache."""
    if engine is None:
        return 0.0
    if torch.cuda.is_available() and engine["kv_cache_gib"] is None:
        return float(engine["gpu_memory_utilization"]) * _device_memory()[1]
    return sum(value.nbytes for value in model.parameters()) + (engine["kv_cache_gib"] or 1.0) * 2**30


def _devices(values: Mapping[str, Any]) -> int:
    count = values["trainer"]["devices"]
    here = max(1, torch.cuda.device_count())
    per_node = count if isinstance(count, int) and count > 0 else len(count) if isinstance(count, list) else here
    return per_node * int(values["trainer"]["num_nodes"])


def _state_bytes(make: Any, dtype: torch.dtype) -> float:
    """Return the bytes of optimizer state per matrix element of a dtype, measured by one step on a small matrix."""
    weight = Parameter(torch.zeros(256, 256, dtype=dtype))
    optimizer = make([("weight", weight)])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
    return sum(value.nbytes for value in kept if value.numel() > 1) / weight.numel()


def _device_memory() -> tuple[str, float]:
    """Return name and bytes of memory of the first GPU; without a GPU, those of this machine."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return device.name, float(device.total_memory)
    return "this machine", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
