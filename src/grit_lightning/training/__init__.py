"""Training steps of GRPO and supervised fine-tuning, with their loss, optimizers, schedules and strategies."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.training.distributed import FSDPStrategy
    from grit_lightning.training.grpo import GRPOModule
    from grit_lightning.training.objective import Objective
    from grit_lightning.training.optimizers.adamw import adamw, adamw_8bit
    from grit_lightning.training.optimizers.muon import MuonAdamW
    from grit_lightning.training.optimizers.schedules import piecewise_linear
    from grit_lightning.training.sft import SFTModule

__all__ = [
    "FSDPStrategy",
    "GRPOModule",
    "MuonAdamW",
    "Objective",
    "SFTModule",
    "adamw",
    "adamw_8bit",
    "piecewise_linear",
]

__getattr__ = lazy_face(
    __name__,
    {
        "distributed": ["FSDPStrategy"],
        "grpo": ["GRPOModule"],
        "objective": ["Objective"],
        "optimizers.adamw": ["adamw", "adamw_8bit"],
        "optimizers.muon": ["MuonAdamW"],
        "optimizers.schedules": ["piecewise_linear"],
        "sft": ["SFTModule"],
    },
)
