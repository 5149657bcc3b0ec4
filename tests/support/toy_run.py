"""A tiny Lightning run for tests: manual optimization, and every step a pure function of its number.

Run as ``toy_run.py DIRPATH STEPS``, the process is killed in the middle of its third checkpoint write.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

from grit_lightning.training.callbacks.checkpoints import StepCheckpoint


class Toy(pl.LightningModule):
    """A linear model trained with momentum, so that optimizer state matters.

    ``at[step]`` is called within the step, before its update.
    """

    def __init__(self, at: dict[int, Callable[[], None]] | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = torch.nn.Linear(4, 1, bias=False)
        torch.nn.init.ones_(self.layer.weight)
        self.at = at or {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        step = self.global_step
        self.at.get(step, lambda: None)()
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = self.layer(x).square().mean()
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        values = {
            "reward/total/mean": step + 0.5,
            "reward/count/mean": step,
            "rollout/length/mean": 100 - step,
            "rollout/truncated": 0.25,
        }
        self.log_dict(values | {"time/tokens_per_second": 50.0, "policy/loss": loss})


def fit(
    module: Toy, callbacks: list[Callback], steps: int, ckpt_path: Path | None = None, **options: object
) -> pl.Trainer:
    """Train ``module`` to ``steps`` steps over an endless stream."""
    options = {"logger": False, "enable_progress_bar": False, "log_every_n_steps": 1} | options
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        callbacks=callbacks,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, torch.utils.data.DataLoader(_Endless(), batch_size=None), ckpt_path=ckpt_path)
    return trainer


class _Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        while True:
            yield torch.zeros(1)


def _kill_within_write(number: int) -> None:
    """Patch ``torch.save`` to kill the process when the ``number``-th checkpoint is half written."""
    save, calls = torch.save, 0

    def torn(checkpoint: object, file: object) -> None:
        nonlocal calls
        calls += 1
        save(checkpoint, file)
        if calls == number:
            file.truncate(file.tell() // 2)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = torn


if __name__ == "__main__":
    torch.set_num_threads(1)
    _kill_within_write(3)
    checkpoint = StepCheckpoint(dirpath=sys.argv[1], every_n_steps=None, last_every_n_steps=1)
    fit(Toy(), [checkpoint], int(sys.argv[2]))
