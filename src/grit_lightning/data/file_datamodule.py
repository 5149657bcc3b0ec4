"""The LightningDataModule that reads GRIT files and serves each rank its prompts."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

from grit_lightning.data.checks import (
    FileCheck,
    check_files,
    check_names,
    fetch_hint,
    find_files,
    raise_first,
)
from grit_lightning.data.images import load_images
from grit_lightning.data.listing import DataFile, Entries, listed
from grit_lightning.data.prompt_datamodule import PromptDataModule, at_least
from grit_lightning.data.stream import PromptStream
from grit_lightning.errors import DataError
from grit_lightning.system.rank import is_first_process
from grit_lightning.types import Prompt, Sample

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """A cache of the most recently used items. Unlike ``functools.lru_cache``, it can be pickled to a spawned process.

    Args:
        capacity: maximum number of items; 0 to keep none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the cached item of ``key``; if there is none, create it with ``make``."""
        value = self._items.pop(key) if key in self._items else make()
        self._items[key] = value
        while len(self._items) > self.capacity:
            self._items.popitem(last=False)
        return value


class GroundedQADataModule(PromptDataModule):
    """Serves training, validation and held-out samples; all are checked and encoded before they are used.

    Call ``attach`` to set the model's encoder. Without an encoder, the data module only reads and checks the samples.

    Args:
        root: folder to which ``file`` and ``images`` of the entries are relative; ``None`` if there are only paths.
        train: a JSONL file, a folder, or a list of these and of ``{"file": ..., "images": ...}`` (``data.listing``). An
            entry whose file or image folder is missing is skipped with a warning.
        val: the same for held-out questions, which may also be generated: ``{"shapes": ..., "seed": ...}`` for scenes
            of the shapes world. These are left out if the training files are not those of ``root``, because a model
            that was trained on other data is not to be judged by them. ``None`` for no held-out questions.
        prompts_per_step: prompts of one optimizer step, over all ranks.
        max_prompt_tokens: maximum length of a prompt in tokens, image tokens included; a longer prompt is an error.
        cached_samples: maximum number of encoded prompts kept in memory.
        seed: seed of the sample order.

    Raises:
        ConfigError: a number is out of range, or two data files have the same stem.
    """

    def __init__(
        self,
        *,
        root: str | None,
        train: Entries,
        val: Entries | None,
        prompts_per_step: int,
        max_prompt_tokens: int,
        cached_samples: int,
        seed: int,
    ) -> None:
        super().__init__(prompts_per_step=prompts_per_step, max_prompt_tokens=max_prompt_tokens, seed=seed)
        at_least(0, cached_samples=cached_samples)
        self.root = None if root is None else Path(root).expanduser()
        base = self.root or Path.cwd()
        own, held_out = listed(base, "train", train), listed(base, "val", val)
        self.listed = {"train": own.files, "val": held_out.files}
        check_names(self.listed["train"], self.listed["val"])
        self.drawn = held_out.drawn if all(one.file.is_relative_to(base) for one in own.files) else []
        if len(self.drawn) < len(held_out.drawn) and is_first_process():
            log.info("the held-out questions of the shapes world are left out: data.train is yours; give data.val=…")
        self._cache: BoundedCache[str, Prompt] = BoundedCache(cached_samples)
        self._samples: dict[str, list[Sample]] = {}
        self._drawn_files: list[DataFile] = []

    def setup(self, stage: str) -> None:
        """Check the files that the stage reads: records, images and prompt lengths.

        Raises:
            DataError: the first problem; the message says how many more there are.
            ConfigError: ``prompts_per_step`` is smaller than the number of ranks.
        """
        for what in ("train", "val") if stage == "fit" else ("val",):
            self._load(what)
        if stage == "fit":
            self.require_prompts_for(self._rank_and_world_size()[1])

    def check(self) -> list[FileCheck]:
        """Check every train, val and held-out file; return the samples and problems of each.

        Raises:
            DataError: there is nothing to check: ``root`` is missing, or no file listed in ``train`` (or in ``val``)
                exists; or the generated scenes cannot be written.
        """
        self._draw()
        return [check for what in ("train", "val", "drawn") if self._used(what) for check in self._check(what)]

    def train_samples(self) -> list[Sample]:
        """Return the checked training samples, in file order.

        Raises:
            DataError: the first problem.
        """
        return self._load("train")

    def val_samples(self) -> list[Sample]:
        """Return the checked held-out samples: those of files, then the generated ones, drawn and written on first use.

        The list is empty if the config has none.

        Raises:
            DataError: the first problem; or generated scenes cannot be written.
        """
        self._draw()
        return [*self._load("val"), *(self._load("drawn") if self._drawn_files else [])]

    def prompt(self, sample: Sample) -> Prompt:
        """Return the encoded prompt of a sample, from the cache if it is there.

        Raises:
            DataError: the image is invalid, or the prompt is too long.
        """
        return self._cache.get(sample.source, lambda: self._encoded(sample, load_images(sample)))

    def _draw(self) -> None:
        if not self._drawn_files:
            self._drawn_files = [file for questions in self.drawn for file in questions.files()]

    def _load(self, what: str) -> list[Sample]:
        if what not in self._samples:
            checks = self._check(what) if self._used(what) else []
            raise_first([problem for check in checks for problem in check.problems])
            self._samples[what] = [sample for check in checks for sample in check.samples]
        return self._samples[what]

    def _used(self, what: str) -> bool:
        return what == "train" or bool(self._drawn_files if what == "drawn" else self.listed[what])

    def _check(self, what: str) -> list[FileCheck]:
        quiet = not is_first_process()
        if what == "drawn":
            files = self._drawn_files
        else:
            if self.root is not None and not self.root.is_dir():
                hint = fetch_hint(self.listed[what])
                raise DataError(f"the folder of data.root does not exist{hint}", str(self.root))
            files = find_files(self.listed[what], what, quiet=quiet)
        encode = self.prompt if self._encode else None
        return check_files(files, encode=encode, count_image_tokens=self._count_image_tokens, quiet=quiet)

    def _stream(self) -> PromptStream:
        return PromptStream(len(self._load("train")), self.prompts_per_step, self.seed)

    def _prompts_at(self, index: int) -> list[Prompt]:
        return [self.prompt(self._load("train")[index])]
