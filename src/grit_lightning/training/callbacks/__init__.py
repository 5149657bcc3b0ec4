"""Lightning callbacks of a training run: checkpoints, progress, run records, held-out evaluation, plots, summary."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.training.callbacks.before_and_after import Demonstration
    from grit_lightning.training.callbacks.checkpoints import StepCheckpoint
    from grit_lightning.training.callbacks.heldout import HeldoutEvaluation
    from grit_lightning.training.callbacks.progress import StepProgressBar
    from grit_lightning.training.callbacks.run_records import ResumeNote, RolloutWriter
    from grit_lightning.training.callbacks.summary import TrainingSummary
    from grit_lightning.training.callbacks.tracked import TrackedConfig, TrackedExamples

__all__ = [
    "Demonstration",
    "HeldoutEvaluation",
    "ResumeNote",
    "RolloutWriter",
    "StepCheckpoint",
    "StepProgressBar",
    "TrackedConfig",
    "TrackedExamples",
    "TrainingSummary",
]

__getattr__ = lazy_face(
    __name__,
    {
        "before_and_after": ["Demonstration"],
        "checkpoints": ["StepCheckpoint"],
        "heldout": ["HeldoutEvaluation"],
        "progress": ["StepProgressBar"],
        "run_records": ["ResumeNote", "RolloutWriter"],
        "summary": ["TrainingSummary"],
        "tracked": ["TrackedConfig", "TrackedExamples"],
    },
)
