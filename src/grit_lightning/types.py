"""The values that flow through one optimizer step: frozen dataclasses with stated shapes and no behaviour.

Dimension suffixes of tensors, used throughout the package: ``_P`` prompts, ``_G`` completions of a prompt,
``_R`` reward components, ``_B`` rows of a micro-batch, ``_S`` positions of a row, ``_T`` completion tokens of a
micro-batch laid flat, ``_C`` its completions, ``_V`` vocabulary, ``_D`` hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Box = tuple[float, float, float, float]
"""``(x1, y1, x2, y2)`` in pixels; each use states which image the pixels belong to."""

Size = tuple[int, int]
"""``(width, height)``."""

IMAGE_MARK = "<image>"
"""Mark in a question that stands for an image."""

FinishReason = Literal["stop", "eos", "length"]
"""Reason why a completion ended: the stop string, the end-of-sequence token, or the token limit."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image of a sample.

    Attributes:
        path: path of the file.
        size: declared ``(width, height)`` in original pixels.
    """

    path: Path
    size: Size


@dataclass(frozen=True, slots=True)
class Region:
    """A reference box of a sample.

    Attributes:
        box: xyxy in original pixels of its image.
        image: index of its image among the sample's images, from 0.
        label: name of what the box shows; ``None`` where the file gives none.
    """

    box: Box
    image: int = 0
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One validated line of a data file.

    Attributes:
        id: ``<file stem>/<line number>``, unique within a data module and stable between runs.
        question: the question, without any instruction to the model. Marks ``<image>``, one per image, place the images
            in it; without marks, the images stand before it.
        answer: the reference answer as text (a number in the file becomes its decimal text).
        images: the images, at least one, in the order in which the model sees them.
        regions: reference boxes; empty where the file has none.
        dataset: the file's ``dataset`` field (``vsr``, ``tallyqa``, ...).
        split: the file's ``split`` field.
        source: ``file:line``, for error messages.
        completion: target text for supervised fine-tuning, with its boxes in original pixels; ``None`` where the file
            has none.
        options: the answers to choose from; empty for an open question.
        extra: all further fields of the line, for custom rewards.
    """

    id: str
    question: str
    answer: str
    images: tuple[ImageFile, ...]
    regions: tuple[Region, ...]
    dataset: str
    split: str
    source: str
    completion: str | None = None
    options: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def image(self) -> Path:
        """Return the path of the first image."""
        return self.images[0].path

    @property
    def size(self) -> Size:
        """Return ``(width, height)`` of the first image in original pixels."""
        return self.images[0].size

    @property
    def sizes(self) -> tuple[Size, ...]:
        """Return ``(width, height)`` of each image in original pixels."""
        return tuple(image.size for image in self.images)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Return the reference boxes, xyxy, each in original pixels of its own image."""
        return tuple(region.box for region in self.regions)


@dataclass(frozen=True, eq=False, slots=True)
class Prompt:
    """A sample encoded as the inputs of a model.

    Attributes:
        sample: the sample that this prompt encodes.
        text: the prompt rendered with the chat template; it contains one placeholder per image.
        input_ids_S: token ids with the image placeholder expanded, int64, shape (S,).
        position_ids_A_S: rotary positions per axis, int64, shape (A, S); A is 3 (time, height, width) for mrope models.
        vision: inputs of the vision tower, one tensor per argument name of ``forward``. Axis 0 is the one on which the
            tensors of several prompts are concatenated.
        box_spaces: for each image, ``(width, height)`` of the coordinate space in which this model writes boxes, such
            as the size of the resized image for Qwen2.5-VL (absolute pixels).
    """

    sample: Sample
    text: str
    input_ids_S: Tensor
    position_ids_A_S: Tensor
    vision: Mapping[str, Tensor]
    box_spaces: tuple[Size, ...]

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
        box_spaces: ``Prompt.box_spaces`` of its prompt.
        logprobs: log π_engine of each token, at the sampling temperature and without banned tokens; ``None`` if the
            policy itself sampled.
        num_given: number of leading ``token_ids`` that belong to the prompt and are excluded from the loss.
    """

    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason
    box_spaces: tuple[Size, ...]
    num_given: int = 0
    logprobs: tuple[float, ...] | None = None

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
