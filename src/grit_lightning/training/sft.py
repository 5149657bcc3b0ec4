"""Supervised fine-tuning: the policy learns to write given completions. GRIT's baseline, and how a base model is made.

Prompts about one image are packed behind it (``packing.share_prefix``), so an image is computed once however many
questions are asked about it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from grit_lightning.data.stream import Batch
from grit_lightning.errors import DataError
from grit_lightning.model.packing import learned
from grit_lightning.model.policy import Policy
from grit_lightning.training.distributed import full_value, gradient_sync
from grit_lightning.training.objective import wide_dtype
from grit_lightning.training.policy_module import PolicyModule
from grit_lightning.training.step_metrics import PhaseTimer
from grit_lightning.types import Box, Completion, Group, Prompt, Sample, Size


class SFTModule(PolicyModule):
    """The policy and the cross-entropy of its targets.

    The loss is the mean of −log π(token | image, prompt, earlier tokens) over all target tokens of a step.

    Args: those of :class:`PolicyModule`.
    """

    def check_samples(self, samples: Sequence[Sample]) -> None:
        """Refuse samples that have nothing to learn from.

        Raises:
            DataError: the first sample with neither a completion nor boxes.
        """
        for sample in samples:
            target_text(sample, sample.size)

    def load_policy(self) -> Policy:
        """The policy as the checkpoint has it, at temperature 1."""
        return Policy.load(self.backbone, temperature=1.0, logits_chunk=self.logits_chunk, entropy=False)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the policy once on this rank's examples."""
        timer = PhaseTimer(self.device)
        groups = [self._group(list(prompts)) for _, prompts in itertools.groupby(batch.prompts, key=_image)]
        learned_N = learned(groups).to(self.device)
        tokens = self._sum_over_ranks(learned_N.sum().to(wide_dtype(self.device)))
        loss = torch.zeros((), device=self.device)
        optimizer = cast(Optimizer, self.optimizers())
        optimizer.zero_grad()
        self._policy.train()
        passes = self._passes(groups, skip=[False] * len(groups))
        for index, (rows, live) in enumerate(passes):
            packed = self._pack(rows, groups)
            with gradient_sync(self.trainer.strategy, last=index == len(passes) - 1):
                logprobs_T = self._policy(packed).logprobs_T
                # Given tokens may be ones that are never sampled, of probability 0: selected away, not multiplied.
                share = -logprobs_T.where(learned_N[packed.token_T] & live, 0.0).sum() / tokens
                # Data-parallel strategies average gradients over ranks; the loss is a share of a global mean.
                self.manual_backward(share * self.trainer.world_size)
            loss += share.detach()
        grad_norm = self._clip_gradient()
        optimizer.step()
        self.log_dict(
            {
                "loss": self._sum_over_ranks(loss).item(),
                "grad_norm": full_value(grad_norm).item(),
                **self._step_metrics(timer, tokens.item()),
            }
        )
        cast(LRScheduler, self.lr_schedulers()).step()

    def _group(self, prompts: list[tuple[int, Prompt]]) -> Group:
        return share_prefix([(prompt, self._target(prompt)) for _, prompt in prompts], slot=prompts[0][0])

    def _target(self, prompt: Prompt) -> Completion:
        return self.backbone.target(target_text(prompt.sample, prompt.box_space), prompt)


def _image(item: tuple[int, Prompt]) -> object:
    return item[1].sample.image


_NUMBER = r"\d+(?:\.\d+)?"


_BOX = re.compile(rf"(?<![\w.])({_NUMBER}),(\s*)({_NUMBER}),(\s*)({_NUMBER}),(\s*)({_NUMBER})(?![\w.]*\d)")


def target_text(sample: Sample, box_space: Size) -> str:
    """What the model should write for a sample, its boxes as integers of ``box_space``.

    The sample's ``completion``, or else ``<think> … boxes … </think> <rethink> … </rethink> <answer> … </answer>``.

    Raises:
        DataError: the sample has neither a completion nor boxes, and its answer is not 0.
    """
    if sample.completion is not None:
        return rescale_boxes(sample.completion, source=sample.size, target=box_space)
    if not sample.boxes and sample.answer != "0":
        raise DataError("no field 'completion' and no 'bboxs' to build one from", sample.source)
    boxes = ", ".join(map(_written, sample.boxes))
    think = f"I look for what is asked: {boxes}." if boxes else "I look for what is asked and find none."
    count = len(sample.boxes)
    rethink = "There is 1 box." if count == 1 else f"There are {count} boxes."
    text = f"<think> {think} </think> <rethink> {rethink} </rethink> <answer> {sample.answer} </answer>"
    return rescale_boxes(text, source=sample.size, target=box_space)


def rescale_boxes(text: str, *, source: Size, target: Size) -> str:
    """The text with every four numbers in a row, separated by commas, scaled and rounded to integers.

    Args:
        text: any text; what stands between the numbers stays as it is.
        source: ``(width, height)`` of the space in which the boxes are written.
        target: the same of the space to write them in.
    """

    def scaled(match: re.Match[str]) -> str:
        x1, gap1, y1, gap2, x2, gap3, y2 = match.groups()
        values = (round(float(v) * target[i % 2] / source[i % 2]) for i, v in enumerate((x1, y1, x2, y2)))
        return "{},{gap1}{},{gap2}{},{gap3}{}".format(*values, gap1=gap1, gap2=gap2, gap3=gap3)

    return _BOX.sub(scaled, text)


def _written(box: Box) -> str:
    # Without spaces: half as many tokens.
    return json.dumps({"bbox_2d": box}, separators=(",", ":"))


def share_prefix(examples: Sequence[tuple[Prompt, Completion]], slot: int) -> Group:
    """Several prompts about one image, each with its completion, as one group: the image is computed once.

    What the prompts have in common becomes the group's prompt; the rest of each leads its completion, as given tokens.

    Args:
        examples: of one image, which must lie in what the prompts have in common, whatever the text around it.
        slot: of the group.
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
    """How many items all sequences begin with."""
    columns = zip(*sequences, strict=False)
    return next((i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, sequences)))
