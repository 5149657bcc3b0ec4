"""The values that flow through one optimizer step: frozen dataclasses with stated shapes and no behaviour.

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
"""``(x1, y1, x2, y2)`` in pixels; each use states which image the pixels belong to."""

Size = tuple[int, int]
"""``(width, height)``."""

FinishReason = Literal["stop", "eos", "length"]
"""Reason why a completion ended: the stop string, the end-of-sequence token, or the token limit."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One validated line of a GRIT data file.

    Attributes:
        id: ``<file stem>/<line number>``, unique within a data module and stable between runs.
        question: the question, without any instruction to the model.
        answer: the reference answer as text (a number in the file becomes its decimal text).
        image: path of the image file.
        size: ``(width, height)`` of the image in original pixels.
        boxes: reference boxes, xyxy in original pixels; empty where the file has none.
        dataset: the file's ``dataset`` field (``vsr``, ``tallyqa``, ...).
        split: the file's ``split`` field.
        source: ``file:line``, for error messages.
        completion: target text for supervised fine-tuning, with its boxes in original pixels; ``None`` where the file
            has none.
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
    """A sample encoded as the inputs of a model.

    Attributes:
        sample: the sample that this prompt encodes.
        text: the prompt rendered with the chat template; it contains one image placeholder.
        input_ids_S: token ids with the image placeholder expanded, int64, shape (S,).
        position_ids_A_S: rotary positions per axis, int64, shape (A, S); A is 3 (time, height, width) for mrope models.
        vision: inputs of the vision tower, one tensor per argument name of ``forward``. Axis 0 is the one on which the
            tensors of several prompts are concatenated.
        box_space: ``(width, height)`` of the coordinate space in which this model writes boxes for this image, such as
            the size of the resized image for Qwen2.5-VL (absolute pixels).
    """

    sample: Sample
    text: str
    input_ids_S: Tensor
    position_ids_A_S: Tensor
    vision: Mapping[str, Tensor]
    box_space: Size

    @property
    def num_tokens(self) -> int:
        """Return the length of the prompt in tokens, image tokens included."""
        return self.input_ids_S.shape[0]


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion sampled by the policy, or the target of supervised fine-tuning.

    Attributes:
        token_ids: exactly the sampled tokens, without padding. In supervised fine-tuning: the tokens of this
            example's prompt that the group's shared prompt lacks (``training.sft.share_prefix``), then the target.
        text: the prefill of the assistant's turn and the decoded tokens, without padding and end tokens.
        finish: reason why it ended.
        box_space: ``Prompt.box_space`` of its prompt.
        num_given: number of leading ``token_ids`` that belong to the prompt and are excluded from the loss.
    """

    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason
    box_space: Size
    num_given: int = 0

    @property
    def truncated(self) -> bool:
        """Tell whether the token limit cut the completion off."""
        return self.finish == "length"


@dataclass(frozen=True, eq=False, slots=True)
class Group:
    """One prompt and its G completions.

    Attributes:
        slot: index of the prompt among all prompts of the step on all ranks; it seeds the sampling noise.
        prompt: the prompt that all completions share.
        completions: the G completions.
    """

    slot: int
    prompt: Prompt
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """The rewards of one completion.

    Attributes:
        components: unweighted value by component name; ``None`` for a component that could not be scored.
        total: weighted sum, or ``None`` (unscored) if a component with a nonzero weight is ``None``.
        errors: one sentence per failed component, by component name.
    """

    components: Mapping[str, float | None]
    total: float | None
    errors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class StepOutput:
    """The results of a training step on this rank, for callbacks.

    Attributes:
        step: number of the optimizer step, counted from 1.
        groups: this rank's groups.
        scores: for each group, the scores of its completions.
        advantages_P_G: advantages of the completions, on the CPU, shape (P, G).
    """

    step: int
    groups: list[Group]
    scores: list[tuple[Score, ...]]
    advantages_P_G: Tensor
