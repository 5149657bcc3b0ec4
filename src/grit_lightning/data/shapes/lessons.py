"""Lessons of the shapes world: an endless curriculum to train the bundled base model on, by (seed, scene index).

Each scene comes with three lessons:

* **Pointing.** Its question followed by :data:`POINTING`, answered in full grounded form. This teaches the *ability* to
  point and reason.
* **Where.** The boxes of all shapes of one colour, one form or both. This practises the same ability in few words.
* **Habit or list**, chosen at random. *Habit* is the question in GRIT's prompt or alone, mostly answered without
  pointing: it teaches the habit of a pretrained model that can point but seldom does. *List* names all shapes, each
  name before its box or after it. From scene ``Curriculum.listings`` on, a second *where* lesson replaces the list,
  because it trains in fewer words to tell which shapes are meant.

The first scenes have few shapes and no questions, but two lists and a *where* lesson. Places and names are learned from
them many times faster than from crowded scenes.
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
"""Ending of a question that is to be answered in grounded form."""

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
    """A prompt about a scene, with the completion to learn.

    Attributes:
        scene: scene that the image shows.
        prompt: full text of the user's turn.
        completion: full text of the assistant's turn, with boxes in original pixels.
    """

    scene: Scene
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Schedule of the lessons, by scene index. Phases are in ascending order.

    Attributes:
        few_shapes: phases (end, limit): scenes before index ``end`` have at most ``limit`` shapes and no questions.
            Scenes after the last phase come with questions.
        answering: phases (start, probability), the first from 0: probability, 0 to 1, that the third lesson is the
            scene's question in one of ``prompts``, for scenes from index ``start`` on.
        difficulties: phases (start, difficulty), the first from 0: difficulty of the scenes from index ``start`` on.
        listings: index of the first scene whose shapes are no longer listed.
        prompts: templates of the prompts ``grounded`` (GRIT's) and ``plain`` (the question alone), each with
            ``{question}`` in it.
        grounded_share: probability, 0 to 1, that GRIT's prompt is answered in grounded form.
    """

    few_shapes: tuple[tuple[int, int], ...]
    answering: tuple[tuple[int, float], ...]
    difficulties: tuple[tuple[int, Difficulty], ...]
    listings: int
    prompts: Mapping[str, str]
    grounded_share: float


def lessons(seed: int, index: int, curriculum: Curriculum) -> list[Lesson]:
    """Return the :data:`LESSONS_PER_SCENE` lessons of scene ``index``, which always belongs to the training split."""
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
    """Return the value of the latest phase that has begun at scene ``index``; phases are (start, value), ascending."""
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
    """Build a *where* lesson; in nine of ten cases it asks for a shape that is present, otherwise for any."""
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
    """Sort shapes from left to right."""
    return sorted(shapes, key=lambda shape: (shape.x, shape.y))


def _grounded(question: Question) -> str:
    return grounded_completion(question, question.scene.size)


def _sentence(parts: Iterable[tuple[str, str]]) -> str:
    return f"{', '.join(' '.join(part) for part in parts)}."
