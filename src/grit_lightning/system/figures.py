"""matplotlib figures without pyplot's global state; matplotlib is imported only when a figure is drawn."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from grit_lightning.system.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of the given size in inches that is not attached to a window."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # hide its messages about searching fonts
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file atomically."""
    with replacing(path) as temporary, warnings.catch_warnings():
        # matplotlib draws a box for a character that its font lacks.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        figure.savefig(temporary, format="png")
