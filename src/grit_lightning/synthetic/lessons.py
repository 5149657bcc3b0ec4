"""Lessons: what a base model of the shapes world is taught, endlessly, each scene a pure function of (seed, index).

Three lessons go with each scene:

* its question with the words :data:`POINTING`, answered in the full grounded form: the *ability* to point and reason;
* its question in GRIT's prompt or alone, mostly answered without pointing: the *habit*, as of a pretrained model that
  could point but seldom does;
* the shapes themselves: all of them listed, the name before the box or the box before the name, or where one is.

The first scenes have few shapes and only the last of these lessons: places and names are learned there, many times
faster than in crowds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from grit_lightning.synthetic.completions import grounded_completion, written_box
from grit_lightning.synthetic.questions import NAMES, Question, mixed_question
from grit_lightning.synthetic.scenes import Scene, between, layout_split, make_scene, pick

POINTING = "Think with boxes."
"""What a question ends with that is to be answered in grounded form."""

NAMES_FIRST = "Name and point at every shape."
BOXES_FIRST = "Point at and name every shape."
WHERE = "Where is the {name}?"

INSTRUCTIONS = (POINTING, NAMES_FIRST, BOXES_FIRST, WHERE)

LESSONS_PER_SCENE = 3


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is asked and what should be written.

    Attributes:
        scene: what is seen.
        prompt: the whole text of the user's turn.
        completion: the whole text of the assistant's, boxes in original pixels.
    """

    scene: Scene
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Curriculum:
    """What is taught when.

    Attributes:
        few_shapes: pairs of a scene index and the largest number of shapes of the scenes before it, ascending; later
            scenes are those of questions.
        prompts: GRIT's prompt as ``grounded`` and the question alone as ``plain``, each with ``{question}`` in it.
        grounded_share: how often GRIT's prompt is answered in grounded form, 0 to 1.
    """

    few_shapes: tuple[tuple[int, int], ...]
    prompts: Mapping[str, str]
    grounded_share: float


def lessons(seed: int, index: int, curriculum: Curriculum) -> list[Lesson]:
    """The lessons of scene ``index``, :data:`LESSONS_PER_SCENE` of them; training scenes alone."""
    rng = Random(f"lessons/{seed}/{index}")
    most = next((shapes for end, shapes in curriculum.few_shapes if index < end), None)
    if most is not None:
        scene = _few_shapes(rng, most)
        return [_about(scene, rng, kind) for kind in ("names", "boxes", "where")]
    question = mixed_question(seed, index, "train")
    return [_pointing(question), _answering(question, rng, curriculum), _about(question.scene, rng)]


def _few_shapes(rng: Random, most: int) -> Scene:
    while True:
        scene = make_scene(rng, [pick(rng, NAMES) for _ in range(between(rng, 1, most))])
        if layout_split(scene.size, scene.shapes) == "train":
            return scene


def _pointing(question: Question) -> Lesson:
    return Lesson(question.scene, f"{question.text} {POINTING}", _grounded(question))


def _answering(question: Question, rng: Random, curriculum: Curriculum) -> Lesson:
    style = pick(rng, ("grounded", "plain"))
    prompt = curriculum.prompts[style].replace("{question}", question.text)
    if style == "plain":
        return Lesson(question.scene, prompt, str(question.answer))
    if rng.random() < curriculum.grounded_share:
        return Lesson(question.scene, prompt, _grounded(question))
    return Lesson(question.scene, prompt, f"<answer> {question.answer} </answer>")


def _about(scene: Scene, rng: Random, kind: str | None = None) -> Lesson:
    shapes = sorted(scene.shapes, key=lambda shape: (shape.x, shape.y))
    boxes = {shape: written_box(shape, scene.size, scene.size) for shape in shapes}
    kind = kind or pick(rng, ("names", "boxes", "where"))
    if kind == "names":
        return Lesson(scene, NAMES_FIRST, _listed(f"{s.label} {boxes[s]}" for s in shapes))
    if kind == "boxes":
        return Lesson(scene, BOXES_FIRST, _listed(f"{boxes[s]} {s.label}" for s in shapes))
    name = pick(rng, shapes).label
    return Lesson(scene, WHERE.replace("{name}", name), _listed(boxes[s] for s in shapes if s.label == name))


def _grounded(question: Question) -> str:
    return grounded_completion(question, question.scene.size)


def _listed(parts: Iterable[str]) -> str:
    return f"{', '.join(parts)}."
