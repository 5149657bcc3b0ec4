"""The commands, one module for each ``task=NAME``, which builds its parts from the config and runs them."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.tasks.bench import run_benchmark
    from grit_lightning.tasks.compare import compare_evaluations
    from grit_lightning.tasks.convert import convert_checkpoint
    from grit_lightning.tasks.demo import serve_demo
    from grit_lightning.tasks.evaluate import evaluate_model
    from grit_lightning.tasks.export import export_model
    from grit_lightning.tasks.fetch import fetch_data
    from grit_lightning.tasks.import_dataset import import_data
    from grit_lightning.tasks.init import init_project
    from grit_lightning.tasks.report import write_report
    from grit_lightning.tasks.score import score_rollouts
    from grit_lightning.tasks.train import train_policy
    from grit_lightning.tasks.validate import validate_data

__all__ = [
    "compare_evaluations",
    "convert_checkpoint",
    "evaluate_model",
    "export_model",
    "fetch_data",
    "import_data",
    "init_project",
    "run_benchmark",
    "score_rollouts",
    "serve_demo",
    "train_policy",
    "validate_data",
    "write_report",
]

__getattr__ = lazy_face(
    __name__,
    {
        "bench": ["run_benchmark"],
        "compare": ["compare_evaluations"],
        "convert": ["convert_checkpoint"],
        "demo": ["serve_demo"],
        "evaluate": ["evaluate_model"],
        "export": ["export_model"],
        "fetch": ["fetch_data"],
        "import_dataset": ["import_data"],
        "init": ["init_project"],
        "report": ["write_report"],
        "score": ["score_rollouts"],
        "train": ["train_policy"],
        "validate": ["validate_data"],
    },
)
