"""The shapes world: an endless, offline stand-in for GRIT's data, every example a pure function of (seed, index).

Coloured shapes on plain backgrounds, counting questions in TallyQA's form and spatial ones in VSR's, with the boxes of
the objects that matter, in the GRIT JSONL format, of two difficulties. ``scenes`` lays objects out, ``drawing`` draws
them, ``questions`` asks, ``completions`` answers in grounded reasoning, ``files`` writes.

**Training and held-out examples share no image and no layout**, whatever their seeds. A layout (the canvas and its
objects) belongs to the split that a bit of its SHA-256 digest names (``scenes.layout_split``), so no layout is in
both. And the lowest bit of the background's blue value is that of the split; objects keep a margin, so the top left
pixel always shows the background, and no two images of different splits agree in it (``scenes.image_split``).
"""

from typing import TYPE_CHECKING

from grit_lightning.system.lazy import lazy_face

if TYPE_CHECKING:
    from grit_lightning.data.shapes.completions import corpus, grounded_completion
    from grit_lightning.data.shapes.files import DrawnDataset, draw_dataset, make_example
    from grit_lightning.data.shapes.lesson_datamodule import LessonDataModule
    from grit_lightning.data.shapes.questions import KINDS, Kind, Question, make_question, mixed_question
    from grit_lightning.data.shapes.scenes import Scene, Shape, Split, image_split, layout_split

__all__ = [
    "KINDS",
    "DrawnDataset",
    "Kind",
    "LessonDataModule",
    "Question",
    "Scene",
    "Shape",
    "Split",
    "corpus",
    "draw_dataset",
    "grounded_completion",
    "image_split",
    "layout_split",
    "make_example",
    "make_question",
    "mixed_question",
]

__getattr__ = lazy_face(
    __name__,
    {
        "completions": ["corpus", "grounded_completion"],
        "files": ["DrawnDataset", "draw_dataset", "make_example"],
        "lesson_datamodule": ["LessonDataModule"],
        "questions": ["KINDS", "Kind", "Question", "make_question", "mixed_question"],
        "scenes": ["Scene", "Shape", "Split", "image_split", "layout_split"],
    },
)
