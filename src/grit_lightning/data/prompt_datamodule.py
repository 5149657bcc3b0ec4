"""What every LightningDataModule of this package has in common: encoded prompts, in an order that nothing disturbs."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L
import torch
from PIL import Image

from grit_lightning.data.stream import Batch, PromptBatches, PromptStream
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.types import Prompt, Sample


class PromptDataModule(L.LightningDataModule):
    """Serves the prompts of each optimizer step to each rank.

    Subclasses say which example comes when (``_stream``) and what it is (``_prompts_at``), and list their samples.

    Args:
        prompts_per_step: prompts of one optimizer step, over all ranks.
        max_prompt_tokens: a longer prompt is an error, image tokens included.
        seed: of the order of samples.

    Raises:
        ConfigError: a number out of range.
    """

    def __init__(self, *, prompts_per_step: int, max_prompt_tokens: int, seed: int) -> None:
        super().__init__()
        at_least(1, prompts_per_step=prompts_per_step, max_prompt_tokens=max_prompt_tokens)
        self.prompts_per_step = prompts_per_step
        self.max_prompt_tokens = max_prompt_tokens
        self.seed = seed
        self._encode: Callable[[Sample, Image.Image], Prompt] | None = None
        self._count_image_tokens: Callable[[Prompt], int] | None = None

    def attach(
        self,
        encode: Callable[[Sample, Image.Image], Prompt],
        count_image_tokens: Callable[[Prompt], int] | None = None,
    ) -> None:
        """Sets the model's encoder, to be called before ``setup``; the counter only serves ``check``'s statistics."""
        self._encode = encode
        self._count_image_tokens = count_image_tokens

    def train_samples(self) -> list[Sample]:
        """The training samples that lie in files, checked, in file order."""
        raise NotImplementedError

    def val_samples(self) -> list[Sample]:
        """The samples to evaluate on, checked."""
        raise NotImplementedError

    def require_prompts_for(self, world_size: int) -> None:
        """Raises ConfigError where one of ``world_size`` ranks would get no prompt."""
        self._stream().batch(0, 0, world_size)

    def train_dataloader(self) -> PromptBatches:
        """Returns the endless batches of this rank, from the trainer's current step.

        A plain iterable: each batch is a cache look-up, so worker processes, which Lightning would suggest for a
        DataLoader, have nothing to do.
        """
        rank, world_size = self._rank_and_world_size()
        return PromptBatches(
            stream=self._stream(),
            prompts_at=self._prompts_at,
            first_step=lambda: self.trainer.global_step if self.trainer else 0,
            rank=rank,
            world_size=world_size,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Leaves the batch alone: prompts are cached on the CPU, and the policy moves what it reads."""
        return batch

    def _stream(self) -> PromptStream:
        raise NotImplementedError

    def _prompts_at(self, index: int) -> list[Prompt]:
        raise NotImplementedError

    def _encoded(self, sample: Sample, image: Image.Image) -> Prompt:
        if self._encode is None:
            raise RuntimeError("attach(encode) comes before prompts are asked for")
        prompt = self._encode(sample, image)
        if prompt.num_tokens > self.max_prompt_tokens:
            raise DataError(
                f"the prompt of sample {sample.id} has {prompt.num_tokens} tokens; expected at most "
                f"data.max_prompt_tokens = {self.max_prompt_tokens}",
                sample.source,
            )
        return prompt

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def at_least(least: int, **values: int) -> None:
    """Raises ConfigError where one of the named values of the data config is smaller."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"data.{name} is {value}; expected at least {least}")
