"""The values that flow through one optimizer step: frozen dataclasses, shapes stated, no behaviour.

Dimension suffixes of tensors, used throughout the package: ``_P`` prompts, ``_G`` completions of a prompt,
``_R`` reward components, ``_B`` rows of a micro-batch, ``_S`` positions of a row, ``_T`` completion tokens of a
micro-batch laid flat, ``_C`` its completions, ``_V`` vocabulary, ``_D`` hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]
"""``(x1, y1, x2, y2)``, in the pixels of an image named where it is used."""

Size = tuple[int, int]
"""``(width, height)``."""

FinishReason = Literal["stop", "eos", "length"]
"""Why a completion ended: the stop string, the end-of-sequence token, or the token limit."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a GRIT data file, checked.

    Attributes:
        id: unique within a data module and stable between runs: ``<file stem>/<line number>``.
        question: the question alone, without any instruction.
        answer: the reference answer as text (a number in the file becomes its decimal text).
        image: the image file.
        size: ``(width, height)`` of the image in original pixels.
        boxes: reference boxes, xyxy in original pixels; empty where the file has none.
        dataset: the file's ``dataset`` field (``vsr``, ``tallyqa``, ...).
        split: the file's ``split`` field.
        source: ``file:line`` for messages.
        completion: what the model should write, for supervised fine-tuning, its boxes in original pixels; ``None``
            where the file has none.
    """

    id: str
    question: str
    answer: str
    image: Path
    size: Size
    boxes: tuple[Box, ...]
    dataset: str
    split: str
    source: str
    completion: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Prompt:
    """A sample as a model reads it.

    Attributes:
        sample: where it comes from.
        text: the rendered prompt, chat template included, one image placeholder.
        input_ids_S: token ids with the image placeholder expanded, int64, shape (S,).
        position_ids_A_S: rotary positions per axis, int64, shape (A, S); A is 3 (time, height, width) for mrope models.
        vision: what the vision tower reads, tensor by forward argument name; concatenated over prompts on axis 0.
        box_space: ``(width, height)`` of the space in which this model writes boxes for this image: the resized image
            for Qwen2.5-VL (absolute pixels).
    """

    sample: Sample
    text: str
    input_ids_S: Tensor
    position_ids_A_S: Tensor
    vision: Mapping[str, Tensor]
    box_space: Size

    @property
    def num_tokens(self) -> int:
        """Length of the prompt in tokens, image tokens included."""
        return self.input_ids_S.shape[0]


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: sampled by the policy, or what it should have written.

    Attributes:
        token_ids: exactly the tokens that were sampled: no padding, and no token that was not sampled. In supervised
            fine-tuning: the target, after what is left of its prompt (``packing.share_prefix``).
        text: their decoded text, special tokens left out.
        finish: why it ended.
        box_space: ``Prompt.box_space`` of its prompt.
        num_given: tokens at its beginning that belong to the prompt, so that there is nothing to learn from them.
    """

    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason
    box_space: Size
    num_given: int = 0

    @property
    def truncated(self) -> bool:
        """Whether the token limit cut it off."""
        return self.finish == "length"


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """One prompt and its G completions.

    Attributes:
        slot: index of the prompt among all prompts of the step, over all ranks; seeds the sampling noise.
    """

    slot: int
    prompt: Prompt
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """What the rewards say of one completion.

    Attributes:
        components: value by component name, before weighting; ``None`` where that component could not be scored.
        total: weighted sum, or ``None`` (unscored) when any component with a weight is ``None``.
        errors: one sentence for each component that failed, by component name.
    """

    components: Mapping[str, float | None]
    total: float | None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class StepOutput:
    """What a training step did, for callbacks.

    Attributes:
        step: the optimizer step, counted from 1.
        groups: of this rank.
        scores: of each group's completions.
        advantages_P_G: on the CPU.
    """

    step: int
    groups: list[Group]
    scores: list[tuple[Score, ...]]
    advantages_P_G: Tensor
