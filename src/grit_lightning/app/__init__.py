"""The command line: compose the config, check it, run the task that it names, and put an error into one line."""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.app.sweeps import SweepReport

__all__ = ["SweepReport"]

__getattr__ = lazy_face(__name__, {"sweeps": ["SweepReport"]})
