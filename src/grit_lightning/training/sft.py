"""The LightningModule of supervised fine-tuning: cross-entropy of target completions.

It provides GRIT's baseline, and trains a base model for GRPO. Consecutive prompts about the same image share it in one
packed row (:func:`share_prefix`), so that the vision tower encodes an image once for all of its questions.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from grit_lightning.data.stream import Batch
from grit_lightning.errors import DataError
from grit_lightning.grounding.boxes import valid_boxes
from grit_lightning.grounding.image_boxes import image_of
from grit_lightning.grounding.text_boxes import TextBox, find_boxes, is_all_boxes, native_places
from grit_lightning.model.packing import learned
from grit_lightning.model.policy import Policy
from grit_lightning.system.tables import excerpt
from grit_lightning.training.distributed import gradient_sync
from grit_lightning.training.objective.group_advantages import wide_dtype
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.training.step_metrics import PhaseTimer
from grit_lightning.types import Completion, Group, Prompt, Region, Sample, Size

_SHOWN = 60
"""Maximum number of characters with which a message shows a part of a completion."""


class SFTModule(PolicyModule):
    """A policy trained with the cross-entropy of target completions.

    The loss is the mean of −log π(token | image, prompt, earlier tokens) over the target tokens of a step on all ranks.
    The constructor takes the arguments of :class:`PolicyModule`.
    """

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Check that every sample has a target completion, or fields from which one can be built.

        Raises:
            DataError: a sample has neither (see :func:`target_text`); the message names the first one.
        """
        for sample in samples:
            target_text(sample, sample.sizes)

    def load_policy(self) -> Policy:
        """Load the policy from the backbone's checkpoint, at temperature 1."""
        return Policy.load(self.backbone, temperature=1.0, logits_chunk=self.logits_chunk, entropy=False)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the policy once on this rank's examples."""
        timer = PhaseTimer(self.device, data=batch.waited)
        groups = [self._group(list(prompts)) for _, prompts in itertools.groupby(batch.prompts, key=_image)]
        learned_N = learned(groups).to(self.device)
        tokens = self._sum_over_ranks(learned_N.sum().to(wide_dtype(self.device)))
        loss = torch.zeros((), device=self.device)
        optimizer = cast(Optimizer, self.optimizers())
        self._policy.train()
        passes = self._passes(groups, skip=[False] * len(groups))
        for index, (rows, live) in enumerate(passes):
            packed = self._pack(rows, groups)
            with gradient_sync(self.trainer.strategy, last=index == len(passes) - 1):
                logprobs_T = self._policy(packed).logprobs_T
                # Given prompt tokens may be banned from sampling, with log-probability −∞: mask them with `where`,
                # because −∞ · 0 is NaN.
                share = -logprobs_T.where(learned_N[packed.token_T] & live, 0.0).sum() / tokens
                # The losses of the ranks add up to the global loss; data-parallel strategies average gradients.
                self.manual_backward(share * self.trainer.world_size)
            loss += share.detach()
        grad_norm, _ = self._take_update(optimizer, {"the loss": loss})
        self.log_dict(
            {
                "policy/loss": self._sum_over_ranks(loss).item(),
                "policy/grad_norm": grad_norm.item(),
                **self._step_metrics(timer, tokens.item()),
            }
        )
        cast(LRScheduler, self.lr_schedulers()).step()

    def _group(self, prompts: list[tuple[int, Prompt]]) -> Group:
        return share_prefix([(prompt, self._target(prompt)) for _, prompt in prompts], slot=prompts[0][0])

    def _target(self, prompt: Prompt) -> Completion:
        return self.backbone.target(target_text(prompt.sample, prompt.box_spaces), prompt)


def _image(item: tuple[int, Prompt]) -> object:
    return tuple(image.path for image in item[1].sample.images)


def target_text(sample: Sample, box_spaces: Sequence[Size]) -> str:
    """Return the target completion of a sample, with box coordinates as integers in ``box_spaces``.

    It is the sample's ``completion`` or, without one, a text built from the reference boxes and the answer:
    ``<think> … boxes … </think> <rethink> … </rethink> <answer> … </answer>``.

    Args:
        sample: the sample; its boxes are in original pixels.
        box_spaces: for each image, ``(width, height)`` of the space in which the model writes boxes.

    Raises:
        DataError: the sample has neither a completion nor boxes, and its answer is not 0; or a native form of a model
            family (box tags, ``bbox_2d``) holds anything but ordered boxes inside the image.
    """
    text = sample.completion if sample.completion is not None else _built(sample)
    if (wrong := unusable_place(text, sample.sizes)) is not None:
        field = "answer" if sample.completion is None else "completion"
        images = " or ".join(f"{width} × {height} px" for width, height in dict.fromkeys(sample.sizes))
        raise DataError(
            f"field '{field}' has {excerpt(wrong, _SHOWN)!r} as a box; expected x1, y1, x2, y2 in original pixels, "
            f"ordered and within {'its' if len(sample.images) > 1 else 'the'} {images} image",
            sample.source,
        )
    return rescale_boxes(text, sources=sample.sizes, targets=box_spaces)


def _built(sample: Sample) -> str:
    if not sample.regions and sample.answer != "0":
        raise DataError("no field 'completion' and no 'bboxs' to build one from", sample.source)
    several = len(sample.images) > 1
    boxes = ", ".join(_written(region, numbered=several) for region in sample.regions)
    think = f"I look for what is asked: {boxes}." if boxes else "I look for what is asked and find none."
    count = len(sample.regions)
    rethink = "There is 1 box." if count == 1 else f"There are {count} boxes."
    return f"<think> {think} </think> <rethink> {rethink} </rethink> <answer> {sample.answer} </answer>"


def unusable_place(text: str, sizes: Sequence[Size]) -> str | None:
    """Return the content of the first native form that holds anything but ordered boxes inside their image.

    Args:
        text: any text.
        sizes: ``(width, height)`` of each image in the unit of the boxes.
    """
    usable = [found for found, _ in _boxes_inside(text, sizes)]
    places = native_places(text)
    return next((text[start:end] for start, end in places if not is_all_boxes(text, (start, end), usable)), None)


def rescale_boxes(text: str, *, sources: Sequence[Size], targets: Sequence[Size]) -> str:
    """Rescale the ordered boxes inside their image, whose numbers become integers; keep all other characters.

    Other numbers, such as years and prices, are not such boxes.

    Args:
        text: any text.
        sources: for each image, ``(width, height)`` of the space in which the boxes of ``text`` are written.
        targets: for each image, ``(width, height)`` of the space of the returned boxes.
    """
    parts, done = [], 0
    for found, image in _boxes_inside(text, sources):
        source, target = sources[image], targets[image]
        for value, (start, end), size in zip(found.box, found.numbers, (0, 1, 0, 1), strict=True):
            parts += [text[done:start], str(round(value * target[size] / source[size]))]
            done = end
    return "".join([*parts, text[done:]])


def _boxes_inside(text: str, sizes: Sequence[Size]) -> list[tuple[TextBox, int]]:
    """Return the ordered boxes inside their image, each with the index of that image."""
    placed = [(found, image_of(found, len(sizes))) for found in find_boxes(text)]
    return [
        (found, image) for found, image in placed if image is not None and valid_boxes([found.box], sizes[image])[0]
    ]


def _written(region: Region, *, numbered: bool) -> str:
    """Return a box as models write it, with its label and, if there are several images, the number of its image."""
    fields: dict[str, Any] = {"bbox_2d": region.box}
    if region.label is not None:
        fields["label"] = region.label
    if numbered:
        fields["image"] = region.image + 1
    # No spaces after separators: they would double the number of tokens.
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False)


def share_prefix(examples: Sequence[tuple[Prompt, Completion]], slot: int) -> Group:
    """Merge several prompts about one image, each with its completion, into one group that holds the image once.

    The longest common prefix of the prompts becomes the prompt of the group. The rest of each prompt is put before its
    completion, as given tokens that do not count in the loss.

    Args:
        examples: prompts with their completions. The image must be part of the common prefix.
        slot: slot of the group.
    """
    prompts = [prompt for prompt, _ in examples]
    common = _common_prefix([prompt.input_ids_S.tolist() for prompt in prompts])
    first = prompts[0]
    shared = replace(first, input_ids_S=first.input_ids_S[:common], position_ids_A_S=first.position_ids_A_S[:, :common])
    return Group(
        slot,
        shared,
        tuple(
            replace(
                completion,
                token_ids=(*prompt.input_ids_S[common:].tolist(), *completion.token_ids),
                num_given=prompt.num_tokens - common,
            )
            for prompt, completion in examples
        ),
    )


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return the length of the longest common prefix."""
    columns = zip(*sequences, strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))
