"""The report: one HTML page about a run, an evaluation, a comparison or a sweep; completions as pictures and rows."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.report.drawing import drawn
    from grit_lightning.report.rows import described, newest_run, rollout_rows, step_records, step_rows

__all__ = ["described", "drawn", "newest_run", "rollout_rows", "step_records", "step_rows"]

__getattr__ = lazy_face(
    __name__,
    {"drawing": ["drawn"], "rows": ["described", "newest_run", "rollout_rows", "step_records", "step_rows"]},
)
