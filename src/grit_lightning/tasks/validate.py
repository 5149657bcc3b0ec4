"""``task=validate``: check a data set for a model; print its contents, its problems and an estimate of memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch.nn import Parameter

from grit_lightning.app.startup import prepare
from grit_lightning.data.checks import FileCheck, describe
from grit_lightning.data.file_datamodule import GroundedQADataModule
from grit_lightning.model.adapters import trained_sentence
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.system.tables import record_table
from grit_lightning.training.memory import Setup, StepSize, estimate


def validate_data(cfg: DictConfig) -> list[FileCheck]:
    """Print a table of the data set, an estimate of memory and all problems; exit with status 1 if there are any.

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
        print(f"{memory(values, backbone, checks)}\n")
    problems = [problem for check in checks for problem in check.problems]
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}")
    if problems:
        sys.exit(1)
    return checks


def memory(values: Mapping[str, Any], backbone: Backbone, checks: Sequence[FileCheck]) -> str:
    """Return a text about the trained parameters and the memory per device: what training needs, what this one has."""
    model = backbone.outline()
    parts = estimate(model, step_size(values, checks), setup(values, backbone.weight_bits(model)))
    peak = parts.pop("peak")
    lines = [f"{name:<26}{size / 2**30:9.2f} GiB" for name, size in parts.items() if size >= 2**20]
    name, available = _device()
    fits = "it fits" if peak < available else "it does not fit: see Out of memory in docs/troubleshooting.md"
    verdict = f"estimated peak on each device: {peak / 2**30:.1f} GiB; {name} has {available / 2**30:.1f} GiB: {fits}"
    return "\n".join([trained_sentence(model), "", *lines, "", verdict])


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


def setup(values: Mapping[str, Any], weight_bits: Mapping[str, float]) -> Setup:
    """Return the settings of the config that determine what a training holds in memory.

    Args:
        values: the resolved config.
        weight_bits: bits per stored weight, from :meth:`~Backbone.weight_bits`.
    """
    strategy = values["trainer"]["strategy"]
    sharded = isinstance(strategy, Mapping) and strategy["_target_"].endswith("FSDPStrategy")
    return Setup(
        reference=values["objective"]["beta"] > 0 and values["peft"] is None,
        optimizer_values=_optimizer_values(instantiate(values["optimizer"])),
        bf16=values["trainer"]["precision"] == "bf16-mixed",
        gradient_checkpointing=values["model"]["gradient_checkpointing"],
        shards=_devices(values) if sharded else 1,
        weight_bits=weight_bits,
    )


def _devices(values: Mapping[str, Any]) -> int:
    count = values["trainer"]["devices"]
    here = max(1, torch.cuda.device_count())
    per_node = count if isinstance(count, int) and count > 0 else len(count) if isinstance(count, list) else here
    return per_node * int(values["trainer"]["num_nodes"])


def _optimizer_values(make: Any) -> float:
    """Return the size of the optimizer state per matrix element, in float32 numbers.

    The size is measured by one step on a small matrix.
    """
    weight = Parameter(torch.zeros(256, 256))
    optimizer = make([("weight", weight)])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor)]
    return sum(value.nbytes for value in kept if value.numel() > 1) / weight.nbytes


def _device() -> tuple[str, float]:
    """Return name and bytes of memory of the first GPU; without a GPU, those of this machine."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return device.name, float(device.total_memory)
    return "this machine", float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
