"""The shapes world: endless synthetic questions about drawn shapes, a stand-in for GRIT's data without downloads.

Each example is a pure function of (seed, index): coloured shapes on a shaded background, and a counting question in
TallyQA's form or a spatial question in VSR's, with the boxes of the relevant objects. Data sets are written in the GRIT
JSONL format.

``scenes`` places objects, ``drawing`` draws them, ``questions`` generates questions, ``completions`` answers them with
grounded reasoning, ``files`` writes data sets, ``lessons`` and ``lesson_datamodule`` generate training data for the
bundled model.

**Training and held-out examples share no image and no layout**, whatever their seeds. A layout is a canvas size with
its objects. One bit of its SHA-256 digest decides its split (``scenes.layout_split``), so no layout is in both splits.
The lowest bit of the background's blue value encodes the split as well. Objects keep a margin, so the top left pixel
always shows the background and differs between any two images of different splits (``scenes.image_split``).
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
