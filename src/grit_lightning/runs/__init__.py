"""The run folder and its contents: manifest, whole and torn checkpoint files, rollouts and their JSON records."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.runs.rollout_store import RolloutStore
    from grit_lightning.runs.run_folder import RunFolder, open_run

__all__ = ["RolloutStore", "RunFolder", "open_run"]

__getattr__ = lazy_face(
    __name__,
    {
        "rollout_store": ["RolloutStore"],
        "run_folder": ["RunFolder", "open_run"],
    },
)
