"""A GRPO module with a loss of NaN, for tests of what is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from grit_lightning.training.grpo import GRPOModule


class OnTheSecondProcess(GRPOModule):
    """Has a loss of NaN in the first step of the second process. Its gradient is finite, and that of the first, too."""

    def _take_update(self, optimizer: Any, values: Mapping[str, Tensor | None]) -> tuple[Tensor, bool]:
        if self.trainer.global_rank == 1 and self.trainer.global_step == 0:
            values = {**values, "the loss": torch.tensor(torch.nan)}
        return super()._take_update(optimizer, values)
