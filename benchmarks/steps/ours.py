"""Our side of the comparison: module and trainer built from the application's own config."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from transformers.utils.logging import disable_progress_bar

from grit_lightning.app import config
from grit_lightning.data.stream import Batch
from grit_lightning.system.paths import conf_dir
from grit_lightning.training.grpo import GRPOModule
from grit_lightning.types import ImageFile, Sample, StepOutput
from steps.gate import Gate
from steps.lengths import forced, lengths
from steps.sizes import Size, checkpoint, image, question


class MeasuredModule(GRPOModule):
    """Encodes prompts within the step, as TRL does, while the application would take them from its cache."""

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave the batch where it is: packing moves what each pass needs to the device."""
        return batch

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, StepOutput]:
        """Encode the samples and their images, then do the application's step."""
        start = time.perf_counter()
        prompts = tuple((slot, self.backbone.encode(sample, [image])) for slot, (sample, image) in batch.prompts)
        self.encode_seconds = time.perf_counter() - start
        return super().training_step(Batch(batch.step, prompts), batch_idx)


class TakesTurns(L.Callback):
    """Starts each step on request and reports its measurements."""

    def __init__(self, gate: Gate, size: Size) -> None:
        self.gate = gate
        self.size = size
        self.start = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Wait for the request to start."""
        self.gate.wait()
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        """Check that all completions have their full length, and report the step."""
        seconds = time.perf_counter() - self.start
        found = tuple(len(c.token_ids) for group in outputs["output"].groups for c in group.completions)
        assert sorted(found) == sorted(lengths(self.size)), found
        logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
        phases = {key: logged[f"time/{key}"] for key in ("rollout", "reference", "update")}
        phases["other"] = seconds - sum(phases.values())
        peak = logged["system/peak_memory_gib"] if module.device.type == "cuda" else None
        self.gate.report(seconds, {"encode": module.encode_seconds, **phases}, peak)


def rows(size: Size) -> int:
    """Return the number of completions of a step, all of which are decoded at once."""
    return size.prompts * size.generations


def overrides(size: Size) -> list[str]:
    """Return the overrides that configure the application for a size."""
    return [
        "model=pretrained", f"model.checkpoint={checkpoint(size)}", "model.random_weights_seed=0",
        f"model.max_pixels={size.pixels**2}", f"model.dtype={size.dtype}",
        f"model.gradient_checkpointing={size.gradient_checkpointing}",
        "prompt=plain", "rollout.stop=never written", "reward=digits", "scheduler=constant", "optimizer.lr=1e-6",
        f"rollout.num_generations={size.generations}", f"rollout.max_new_tokens={size.new_tokens}",
        f"module.max_tokens_per_pass={size.pass_tokens}", f"module.logits_chunk={size.logits_chunk}",
        f"optimizer.moments={size.moments}", "trainer.max_steps=-1", f"rollout.max_sequences={rows(size)}",
        "logger=csv", "~logger", "~callbacks", "module._target_=steps.ours.MeasuredModule",
    ]  # fmt: skip


def batches(size: Size) -> Iterator[Batch]:
    """Yield batches without end, each with new images."""
    step = 0
    while True:
        pairs: list[tuple[int, Any]] = []
        for slot in range(size.prompts):
            index = step * size.prompts + slot
            pairs.append((slot, (_sample(size, index), image(size, index))))
        yield Batch(step, tuple(pairs))
        step += 1


def _sample(size: Size, index: int) -> Sample:
    return Sample(
        str(index),
        question(size, index),
        "2",
        (ImageFile(Path("noise"), image(size, index).size),),
        (),
        "tallyqa",
        "train",
        str(index),
    )


def module_of(size: Size, *more: str) -> tuple[MeasuredModule, dict[str, Any]]:
    """Return the module and the resolved config.

    Args:
        size: size of the steps.
        more: further overrides.
    """
    config.register()
    disable_progress_bar()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        # Only the groups that are measured, so that nothing is needed that others import.
        values = config.check(compose("config", [*overrides(size), *more]), "trainer", "module")
    torch.manual_seed(values["module"]["seed"])
    module: MeasuredModule = instantiate(values["module"])
    return module, values


def prompt_tokens(module: GRPOModule, size: Size) -> int:
    """Return the number of tokens of a prompt, image tokens included."""
    return module.backbone.encode(_sample(size, 0), [image(size, 0)]).num_tokens


def trainer_of(size: Size, values: dict[str, Any], *callbacks: L.Callback, max_steps: int = -1) -> L.Trainer:
    """Return a trainer without logger, checkpoints and progress bar, which would add to the time of a step."""
    return L.Trainer(
        max_steps=max_steps, accelerator=values["trainer"]["accelerator"], devices=1,
        precision=values["trainer"]["precision"], logger=False, callbacks=list(callbacks),
        enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip


def stream(size: Size) -> Any:
    """Return a data loader of the endless batches."""
    return torch.utils.data.DataLoader(_Stream(size), batch_size=None)


class _Stream(torch.utils.data.IterableDataset[Batch]):
    def __init__(self, size: Size) -> None:
        self.size = size

    def __iter__(self) -> Iterator[Batch]:
        return batches(self.size)


def main() -> None:
    """Do steps on request until the measuring process closes the connection."""
    gate = Gate()
    gate.imported()
    size = Size.from_json(sys.argv[1])
    module, values = module_of(size)
    with forced(size):
        trainer_of(size, values, TakesTurns(gate, size)).fit(module, stream(size))


if __name__ == "__main__":
    main()
