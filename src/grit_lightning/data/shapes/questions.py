"""Questions about scenes: counting in TallyQA's form, spatial relations in VSR's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

from grit_lightning.data.shapes.scenes import (
    COLOURS,
    FORMS,
    STANDARD,
    Difficulty,
    Scene,
    Shape,
    Split,
    layout_split,
    make_scene,
    pick,
)

Kind = Literal["tallyqa", "vsr"]
KINDS: tuple[Kind, ...] = ("tallyqa", "vsr")
"""Kinds of question, by the dataset whose form they take: counting and spatial."""

NAMES: tuple[tuple[str, str], ...] = tuple(itertools.product(COLOURS, FORMS))


class Relation(NamedTuple):
    """A spatial relation: its wording in a yes/no and in a what-question, and the axis and direction it goes."""

    is_phrase: str
    what_phrase: str
    axis: int
    sign: int


RELATIONS: tuple[Relation, ...] = (
    Relation("at the left side of", "left of", 0, -1),
    Relation("at the right side of", "right of", 0, 1),
    Relation("above", "above", 1, -1),
    Relation("below", "below", 1, 1),
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene.

    Attributes:
        kind: the dataset whose form it takes.
        scene: what is seen.
        text: the question alone.
        answer: a count, ``Yes`` or ``No``, or the label of an object.
        targets: the objects that matter: those counted, from left to right; or the subject and the reference object.
        subject: what is counted (``red circles``), or the relation in words (``left of``).
    """

    kind: Kind
    scene: Scene
    text: str
    answer: int | str
    targets: tuple[Shape, ...]
    subject: str

    def record(self, image: str, split: str) -> dict[str, Any]:
        """One line of the GRIT JSONL format; boxes in original pixels.

        Args:
            image: file name of the drawn scene, relative to the image folder.
            split: the ``split`` field.
        """
        width, height = self.scene.size
        return {
            "question": self.text,
            "answer": self.answer,
            "image": image,
            "width": width,
            "height": height,
            "bboxs": [list(shape.box) for shape in self.targets],
            "dataset": self.kind,
            "split": split,
        }


def make_question(seed: int, index: int, kind: Kind, split: Split, difficulty: Difficulty = STANDARD) -> Question:
    """Returns a question as a pure function of its arguments, its scene drawn at random from the split's.

    Answers are balanced by turns: of ``max_count + 1`` counting questions in a row each has another answer, and of four
    spatial ones in a row one is *yes*, one *no* and two are *what*.
    """
    attempts = (_attempt(seed, index, kind, attempt, difficulty) for attempt in itertools.count())
    return next(q for q in attempts if q and layout_split(q.scene.size, q.scene.shapes) == split)


def mixed_question(seed: int, index: int, split: Split, difficulty: Difficulty = STANDARD) -> Question:
    """Returns a question as a pure function of its arguments: counting and spatial ones in turn, balanced as above."""
    return make_question(seed, index // len(KINDS), KINDS[index % len(KINDS)], split, difficulty)


def plural(label: str) -> str:
    """The plural of a label of this world."""
    return f"{label}s"


def _attempt(seed: int, index: int, kind: Kind, attempt: int, difficulty: Difficulty) -> Question | None:
    rng = Random(f"{seed}/{kind}/{index}/{attempt}")
    return _counting(rng, index, difficulty) if kind == "tallyqa" else _spatial(rng, index, difficulty)


def _counting(rng: Random, index: int, difficulty: Difficulty) -> Question:
    """How many objects of a colour, of a form, or of both; beside others that share one of the two."""
    count = index % (difficulty.max_count + 1)
    colour, form = pick(rng, NAMES)
    asked = pick(rng, difficulty.counted_by)

    def counted(name: tuple[str, str]) -> bool:
        return (asked == "form" or name[0] == colour) and (asked == "colour" or name[1] == form)

    wanted = [name for name in NAMES if counted(name)]
    others = [name for name in NAMES if not counted(name)]
    alike = [name for name in others if name[0] == colour or name[1] == form] or others
    names = [pick(rng, wanted) for _ in range(count)]
    totals = difficulty.counting_shapes
    beside = pick(rng, difficulty.beside_counted) if totals is None else pick(rng, totals) - count
    names += [pick(rng, pick(rng, (alike, others))) for _ in range(beside)]
    scene = make_scene(rng, names, difficulty)
    targets = tuple(sorted(scene.shapes[:count], key=lambda shape: (shape.x, shape.y)))
    subject = plural({"both": f"{colour} {form}", "form": form, "colour": f"{colour} shape"}[asked])
    return Question("tallyqa", scene, f"How many {subject} are there?", count, targets, subject)


def _spatial(rng: Random, index: int, difficulty: Difficulty) -> Question | None:
    """A yes, a no or a what-question; nothing when the scene has no clear case of the relation."""
    names: list[tuple[str, str]] = []
    for _ in range(pick(rng, difficulty.spatial_shapes)):
        names.append(pick(rng, [name for name in NAMES if name not in names]))
    scene = make_scene(rng, names, difficulty)
    relation = pick(rng, RELATIONS)
    asked = ("yes", "what", "no", "what")[index % 4]
    pairs = [
        (subject, reference)
        for subject, reference in itertools.permutations(scene.shapes, 2)
        if holds(relation, subject, reference) and (asked != "what" or _only(relation, subject, reference, scene))
    ]
    if not pairs:
        return None
    subject, reference = pick(rng, pairs)
    if asked == "what":
        text = f"What is {relation.what_phrase} the {reference.label}?"
        return Question("vsr", scene, text, subject.label, (subject, reference), relation.what_phrase)
    if asked == "no":  # the same clear case, seen from the other object
        subject, reference = reference, subject
    text = f"Is the {subject.label} {relation.is_phrase} the {reference.label}?"
    answer = "Yes" if asked == "yes" else "No"
    return Question("vsr", scene, text, answer, (subject, reference), relation.what_phrase)


def holds(relation: Relation, subject: Shape, reference: Shape) -> bool:
    """Whether the relation holds beyond doubt: the boxes do not overlap along its axis."""
    ahead = relation.sign * (_centre(subject, relation) - _centre(reference, relation))
    return ahead >= (subject.side + reference.side) / 2


def _only(relation: Relation, subject: Shape, reference: Shape, scene: Scene) -> bool:
    """Whether no third object lies even a little further in the relation's direction than the reference."""
    others = [shape for shape in scene.shapes if shape not in (subject, reference)]
    line = _centre(reference, relation)
    return all(relation.sign * (_centre(shape, relation) - line) <= 0 for shape in others)


def _centre(shape: Shape, relation: Relation) -> float:
    return (shape.x, shape.y)[relation.axis] + shape.side / 2
