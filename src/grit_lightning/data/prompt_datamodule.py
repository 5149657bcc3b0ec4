"""The base class of this package's LightningDataModules: encoded prompts, in a reproducible order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
import torch
from PIL import Image

from grit_lightning.data.stream import Batch, PromptBatches, PromptStream
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.types import Prompt, Sample


class PromptDataModule(L.LightningDataModule):
    """Serves the prompts of each optimizer step to each rank.

    Subclasses define the order of samples (``_stream``), the prompts of a sample (``_prompts_at``), and the lists of
    training and validation samples.

    Args:
        prompts_per_step: prompts of one optimizer step, over all ranks.
        max_prompt_tokens: maximum length of a prompt in tokens, image tokens included; a longer prompt is an error.
        seed: seed of the sample order.
        prefetch_steps: number of steps whose prompts are encoded in the background before they are needed.
        workers: number of threads that encode; 0 to encode on the training thread.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self, *, prompts_per_step: int, max_prompt_tokens: int, seed: int, prefetch_steps: int, workers: int
    ) -> None:
        super().__init__()
        at_least(1, prompts_per_step=prompts_per_step, max_prompt_tokens=max_prompt_tokens)
        at_least(0, prefetch_steps=prefetch_steps, workers=workers)
        self.prefetch_steps = prefetch_steps
        self.workers = workers
        self.prompts_per_step = prompts_per_step
        self.max_prompt_tokens = max_prompt_tokens
        self.seed = seed
        self._encode: Callable[[Sample, Sequence[Image.Image]], Prompt] | None = None
        self._count_image_tokens: Callable[[Prompt], int] | None = None

    def attach(
        self,
        encode: Callable[[Sample, Sequence[Image.Image]], Prompt],
        count_image_tokens: Callable[[Prompt], int] | None = None,
    ) -> None:
        """Set the model's encoder. Call this before ``setup``.

        Args:
            encode: function that turns a sample and its images into a prompt.
            count_image_tokens: function that counts the image tokens of a prompt, used only for the statistics of
                ``check``; ``None`` to leave them out.
        """
        self._encode = encode
        self._count_image_tokens = count_image_tokens

    def train_samples(self) -> list[Sample]:
        """Return the checked training samples that are stored in files, in file order."""
        raise NotImplementedError

    def val_samples(self) -> list[Sample]:
        """Return the checked samples to evaluate on."""
        raise NotImplementedError

    def require_prompts_for(self, world_size: int) -> None:
        """Raise ConfigError if one of ``world_size`` ranks would get no prompt."""
        self._stream().batch(0, 0, world_size)

    def train_dataloader(self) -> PromptBatches:
        """Return the endless batches of this rank, starting at the trainer's current step.

        The result is a plain iterable and not a ``DataLoader``: threads encode the next steps, and share the cache of
        prompts, which worker processes could not.
        """
        rank, world_size = self._rank_and_world_size()
        return PromptBatches(
            stream=self._stream(),
            prompts_at=self._prompts_at,
            first_step=lambda: self.trainer.global_step if self.trainer else 0,
            rank=rank,
            world_size=world_size,
            ahead=self.prefetch_steps,
            workers=self.workers,
        )

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch unchanged: prompts are cached on the CPU, and the policy moves the tensors that it reads."""
        return batch

    def _stream(self) -> PromptStream:
        raise NotImplementedError

    def _prompts_at(self, index: int) -> list[Prompt]:
        raise NotImplementedError

    def _encoded(self, sample: Sample, images: Sequence[Image.Image]) -> Prompt:
        if self._encode is None:
            raise RuntimeError("no encoder is set; call attach(encode) before using prompts")
        prompt = self._encode(sample, images)
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
    """Raise ConfigError if one of the named values of the data config is smaller than ``least``."""
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"data.{name} is {value}; expected at least {least}")
