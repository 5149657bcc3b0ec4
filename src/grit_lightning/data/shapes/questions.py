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
"""Kinds of question, named after the dataset whose form they take: ``tallyqa`` counts, ``vsr`` is spatial."""

NAMES: tuple[tuple[str, str], ...] = tuple(itertools.product(COLOURS, FORMS))


class Relation(NamedTuple):
    """A spatial relation: its wording and its direction.

    Attributes:
        is_phrase: wording in a yes/no question.
        what_phrase: wording in a *what* question.
        axis: 0 for x, 1 for y.
        sign: direction along the axis, 1 for right or below, -1 for left or above.
    """

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
        kind: dataset whose form the question takes.
        scene: scene that the question is about.
        text: the question, without any instruction.
        answer: a count, ``Yes`` or ``No``, or the label of an object.
        targets: relevant objects: for counting, the counted ones from left to right; otherwise the subject and the
            reference object of the relation.
        subject: the counted objects in words (``red circles``), or the relation in words (``left of``).
    """

    kind: Kind
    scene: Scene
    text: str
    answer: int | str
    targets: tuple[Shape, ...]
    subject: str

    def record(self, image: str, split: str) -> dict[str, Any]:
        """Return the question as a record of the GRIT JSONL format, with boxes in original pixels.

        Args:
            image: file name of the drawn scene, relative to the image folder.
            split: value of the ``split`` field.
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
    """Return a question of a kind, a pure function of its arguments; its scene belongs to the split.

    Answers are balanced by rotation: ``max_count + 1`` consecutive counting questions all have different answers, and
    of four consecutive spatial questions one is answered *yes*, one *no*, and two are *what* questions.
    """
    attempts = (_attempt(seed, index, kind, attempt, difficulty) for attempt in itertools.count())
    return next(q for q in attempts if q and layout_split(q.scene.size, q.scene.shapes) == split)


def mixed_question(seed: int, index: int, split: Split, difficulty: Difficulty = STANDARD) -> Question:
    """Return a question whose kind alternates with the index; pure and balanced like :func:`make_question`."""
    return make_question(seed, index // len(KINDS), KINDS[index % len(KINDS)], split, difficulty)


def plural(label: str) -> str:
    """Return the plural of a label."""
    return f"{label}s"


def _attempt(seed: int, index: int, kind: Kind, attempt: int, difficulty: Difficulty) -> Question | None:
    rng = Random(f"{seed}/{kind}/{index}/{attempt}")
    return _counting(rng, index, difficulty) if kind == "tallyqa" else _spatial(rng, index, difficulty)


def _counting(rng: Random, index: int, difficulty: Difficulty) -> Question:
    """Ask for the number of objects of a colour, a form or both; most other objects share one of the two."""
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
    """Ask a yes/no or *what* question; return ``None`` if no pair of objects clearly shows the relation."""
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
    if asked == "no":  # swapped objects make a clear *no*
        subject, reference = reference, subject
    text = f"Is the {subject.label} {relation.is_phrase} the {reference.label}?"
    answer = "Yes" if asked == "yes" else "No"
    return Question("vsr", scene, text, answer, (subject, reference), relation.what_phrase)


def holds(relation: Relation, subject: Shape, reference: Shape) -> bool:
    """Tell whether the relation clearly holds: the boxes lie in its order and do not overlap along its axis."""
    ahead = relation.sign * (_centre(subject, relation) - _centre(reference, relation))
    return ahead >= (subject.side + reference.side) / 2


def _only(relation: Relation, subject: Shape, reference: Shape, scene: Scene) -> bool:
    """Tell whether no third object's centre lies beyond the reference's centre in the relation's direction."""
    others = [shape for shape in scene.shapes if shape not in (subject, reference)]
    line = _centre(reference, relation)
    return all(relation.sign * (_centre(shape, relation) - line) <= 0 for shape in others)


def _centre(shape: Shape, relation: Relation) -> float:
    return (shape.x, shape.y)[relation.axis] + shape.side / 2
