"""Lessons: what a base model of the shapes world is taught, endlessly, each scene a pure function of (seed, index).

Three lessons go with each scene:

* its question with the words :data:`POINTING`, answered in the full grounded form: the *ability* to point and reason;
* where the shapes of a colour, of a form or of both are: what that ability is made of, in few words;
* by chance, its question in GRIT's prompt or alone, mostly answered without pointing, which makes the *habit*, as of a
  pretrained model that could point but seldom does; or all shapes listed, the name before the box or after it; later,
  instead of a list, once more where some are, which says in fewer words which shapes are meant.

The first scenes have few shapes and no questions: places and names are learned there, many times faster than in crowds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from grit_lightning.data.shapes.completions import grounded_completion, written_box
from grit_lightning.data.shapes.questions import NAMES, Question, mixed_question, plural
from grit_lightning.data.shapes.scenes import Difficulty, Scene, Shape, between, layout_split, make_scene, pick

POINTING = "Think with boxes."
"""What a question ends with that is to be answered in grounded form."""

NAMES_FIRST = "Name and point at every shape."
BOXES_FIRST = "Point at and name every shape."
WHERE = "Where are the {subject}?"
NOWHERE = "There are none."

INSTRUCTIONS = (POINTING, NAMES_FIRST, BOXES_FIRST, WHERE, NOWHERE)

LISTINGS = (NAMES_FIRST, BOXES_FIRST)

LESSONS_PER_SCENE = 3

T = TypeVar("T")


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
        answering: pairs of a scene index and how often, from that scene on, the third lesson is the scene's question in
            one of ``prompts``, 0 to 1; ascending, the first from 0.
        difficulties: pairs of a scene index and how hard scenes are from that one on; ascending, the first from 0.
        listings: index of the first scene whose shapes are no longer listed.
        prompts: GRIT's prompt as ``grounded`` and the question alone as ``plain``, each with ``{question}`` in it.
        grounded_share: how often GRIT's prompt is answered in grounded form, 0 to 1.
    """

    few_shapes: tuple[tuple[int, int], ...]
    answering: tuple[tuple[int, float], ...]
    difficulties: tuple[tuple[int, Difficulty], ...]
    listings: int
    prompts: Mapping[str, str]
    grounded_share: float


def lessons(seed: int, index: int, curriculum: Curriculum) -> list[Lesson]:
    """The lessons of scene ``index``, :data:`LESSONS_PER_SCENE` of them; training scenes alone."""
    rng = Random(f"lessons/{seed}/{index}")
    difficulty = _at(index, curriculum.difficulties)
    most = next((shapes for end, shapes in curriculum.few_shapes if index < end), None)
    if most is not None:
        scene = _few_shapes(rng, most, difficulty)
        return [_listing(scene, NAMES_FIRST), _listing(scene, BOXES_FIRST), _where(scene, rng)]
    question = mixed_question(seed, index, "train", difficulty)
    if rng.random() < _at(index, curriculum.answering):
        third = _answering(question, rng, curriculum)
    elif index < curriculum.listings:
        third = _listing(question.scene, pick(rng, LISTINGS))
    else:
        third = _where(question.scene, rng)
    return [_pointing(question), _where(question.scene, rng), third]


def _at(index: int, phases: Sequence[tuple[int, T]]) -> T:
    """What holds at this scene, of pairs of the scene from which it holds and the thing; ascending."""
    return next(value for start, value in reversed(phases) if start <= index)


def _few_shapes(rng: Random, most: int, difficulty: Difficulty) -> Scene:
    while True:
        scene = make_scene(rng, [pick(rng, NAMES) for _ in range(between(rng, 1, most))], difficulty)
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


def _listing(scene: Scene, instruction: str) -> Lesson:
    parts = [(shape.label, written_box(shape, scene.size, scene.size)) for shape in _in_order(scene.shapes)]
    return Lesson(scene, instruction, _sentence(parts if instruction == NAMES_FIRST else [(b, n) for n, b in parts]))


def _where(scene: Scene, rng: Random) -> Lesson:
    """Shapes by colour, form or both; of what is there, but for one time in ten."""
    colour, form = pick(rng, NAMES)
    if rng.random() < 0.9:
        one = pick(rng, scene.shapes)
        colour, form = one.colour, one.form
    asked = pick(rng, ("both", "both", "colour", "form"))
    subject = plural({"both": f"{colour} {form}", "form": form, "colour": f"{colour} shape"}[asked])
    found = [
        (shape.label, written_box(shape, scene.size, scene.size))
        for shape in _in_order(scene.shapes)
        if (asked == "form" or shape.colour == colour) and (asked == "colour" or shape.form == form)
    ]
    return Lesson(scene, WHERE.replace("{subject}", subject), _sentence(found) if found else NOWHERE)


def _in_order(shapes: Sequence[Shape]) -> list[Shape]:
    """From left to right."""
    return sorted(shapes, key=lambda shape: (shape.x, shape.y))


def _grounded(question: Question) -> str:
    return grounded_completion(question, question.scene.size)


def _sentence(parts: Iterable[tuple[str, str]]) -> str:
    return f"{', '.join(' '.join(part) for part in parts)}."
