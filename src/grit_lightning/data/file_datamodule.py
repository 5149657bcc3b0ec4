"""The LightningDataModule that reads GRIT files and serves each rank its prompts."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Generic, TypeVar

from grit_lightning.data.checked_images import CheckedImages
from grit_lightning.data.checks import (
    FileCheck,
    check_names,
    check_samples,
    fetch_hint,
    find_files,
    raise_first,
    read_file,
)
from grit_lightning.data.image_checks import check_images, cores
from grit_lightning.data.images import load_images
from grit_lightning.data.listing import DataFile, Entries, listed
from grit_lightning.data.prompt_datamodule import PromptDataModule, at_least
from grit_lightning.data.stream import PromptStream
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.rank import is_first_process
from grit_lightning.types import Prompt, Sample

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


CHECKS = ("auto", "headers", "all")
"""Values of ``data.check``."""

FULLY_CHECKED = 256
"""Most samples that are decoded and encoded before the first step with ``check="auto"``."""


class BoundedCache(Generic[K, V]):
    """A cache of the most recently used items, for several threads.

    Unlike ``functools.lru_cache``, it can be pickled to a spawned process.

    Args:
        capacity: maximum number of items; 0 to keep none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the cached item of ``key``; if there is none, create it with ``make``.

        Threads create items at the same time, an item that several ask for perhaps more than once.
        """
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        value = make()
        with self._lock:
            self._items[key] = value
            while len(self._items) > self.capacity:
                self._items.popitem(last=False)
        return value


class GroundedQADataModule(PromptDataModule):
    """Serves training, validation and held-out samples, which are checked before the first step.

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
        check: what is checked of images before the first step. ``headers``: that each is there, is an image and has the
            declared size; bad pixels and too long prompts are errors when their step comes. ``all``: all pixels too, in
            a process per core; what passed is remembered (:class:`CheckedImages`). ``auto``: for up to
            ``FULLY_CHECKED`` samples everything, prompts included, otherwise ``headers``.
        prefetch_steps, workers: as in :class:`PromptDataModule`.

    Raises:
        ConfigError: a number is out of range, ``check`` is another word, or two data files have the same stem.
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
        check: str = "auto",
        prefetch_steps: int = 1,
        workers: int = 4,
    ) -> None:
        super().__init__(
            prompts_per_step=prompts_per_step,
            max_prompt_tokens=max_prompt_tokens,
            seed=seed,
            prefetch_steps=prefetch_steps,
            workers=workers,
        )
        at_least(0, cached_samples=cached_samples)
        if check not in CHECKS:
            raise ConfigError(f"data.check is {check}; expected one of {', '.join(CHECKS)}")
        self.check_at_start = check
        self.root = None if root is None else Path(root).expanduser()
        base = self.root or Path.cwd()
        own, held_out = listed(base, "train", train), listed(base, "val", val)
        self.listed = {"train": own.files, "val": held_out.files}
        check_names(self.listed["train"], self.listed["val"])
        self.drawn = held_out.drawn if all(one.file.is_relative_to(base) for one in own.files) else []
        if len(self.drawn) < len(held_out.drawn) and is_first_process():
            log.info("the held-out questions of the shapes world are left out: data.train is yours; give data.val=…")
        self._cache: BoundedCache[tuple[str, tuple[str, ...]], Prompt] = BoundedCache(cached_samples)
        self._samples: dict[str, list[Sample]] = {}
        self._drawn_files: list[DataFile] = []

    def setup(self, stage: str) -> None:
        """Check the files that the stage reads: records and, as ``check`` says, images and prompt lengths.

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
        used = [what for what in ("train", "val", "drawn") if self._used(what)]
        return [check for what in used for check in self._encoded_all(self._read(what))]

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
        return self._cache.get((sample.source, sample.options), lambda: self._encoded(sample, load_images(sample)))

    def _draw(self) -> None:
        if not self._drawn_files:
            self._drawn_files = [file for questions in self.drawn for file in questions.files()]

    def _load(self, what: str) -> list[Sample]:
        if what not in self._samples:
            checks = self._checked_at_start(what) if self._used(what) else []
            raise_first([problem for check in checks for problem in check.problems])
            self._samples[what] = [sample for check in checks for sample in check.samples]
        return self._samples[what]

    def _checked_at_start(self, what: str) -> list[FileCheck]:
        """Read the files and check their images, as far as ``data.check`` asks for."""
        read = self._read(what)
        samples = [sample for check in read for sample in check.samples]
        if self.check_at_start == "auto" and len(samples) <= FULLY_CHECKED:
            return self._encoded_all(read)
        decode = self.check_at_start == "all"
        workers = cores() if decode else self.workers  # nothing else runs yet
        quiet = not is_first_process()
        problems = check_images(samples, decode=decode, workers=workers, memory=CheckedImages.of_user(), quiet=quiet)
        return [*read, FileCheck(Path(), (), (), (), tuple(problems))]

    def _used(self, what: str) -> bool:
        return what == "train" or bool(self._drawn_files if what == "drawn" else self.listed[what])

    def _read(self, what: str) -> list[FileCheck]:
        return [read_file(entry, quiet=not is_first_process()) for entry in self._files(what)]

    def _encoded_all(self, read: list[FileCheck]) -> list[FileCheck]:
        """Decode the images of files that were read, and encode their prompts."""
        return check_samples(
            read,
            encode=self.prompt if self._encode else None,
            count_image_tokens=self._count_image_tokens,
            workers=self.workers,
            quiet=not is_first_process(),
        )

    def _files(self, what: str) -> list[DataFile]:
        if what == "drawn":
            return self._drawn_files
        if self.root is not None and not self.root.is_dir():
            hint = fetch_hint(self.listed[what])
            raise DataError(f"the folder of data.root does not exist{hint}", str(self.root))
        return find_files(self.listed[what], what, quiet=not is_first_process())

    def _stream(self) -> PromptStream:
        return PromptStream(len(self._load("train")), self.prompts_per_step, self.seed)

    def _prompts_at(self, index: int) -> list[Prompt]:
        return [self.prompt(self._load("train")[index])]
