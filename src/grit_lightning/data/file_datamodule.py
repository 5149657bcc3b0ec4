"""The LightningDataModule that reads GRIT files and serves each rank its prompts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from grit_lightning.data.checks import (
    FETCH_HINT,
    DataFile,
    FileCheck,
    check_files,
    check_names,
    find_files,
    raise_first,
)
from grit_lightning.data.images import load_image
from grit_lightning.data.prompt_datamodule import PromptDataModule, at_least
from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.data.shapes.scenes import DIFFICULTIES
from grit_lightning.data.stream import PromptStream
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.paths import cache_folder
from grit_lightning.system.rank import is_first_process
from grit_lightning.types import Prompt, Sample

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
        root: folder to which the paths of ``train`` and ``val`` are relative.
        train: ``{"file": ..., "images": ...}`` for each JSONL file and its image folder. An entry whose file or folder
            is missing is skipped with a warning.
        val: entries for validation in the same form; ``None`` for no validation files.
        prompts_per_step: prompts of one optimizer step, over all ranks.
        max_prompt_tokens: maximum length of a prompt in tokens, image tokens included; a longer prompt is an error.
        cached_samples: maximum number of encoded prompts kept in memory.
        seed: seed of the sample order.
        heldout: ``None`` for no held-out scenes, or ``{"count": ..., "seed": ..., "difficulty": ..., "folder": ...}``
            for scenes of the shapes world that share no image with its training scenes. ``count`` is the number of
            samples per kind of question. ``difficulty`` is optional (default ``standard``). ``folder`` is the optional
            target folder; by default it is a subfolder of the cache folder whose name contains a hash of the scenes.

    Raises:
        ConfigError: a number is out of range, or two data files have the same stem.
    """

    def __init__(
        self,
        *,
        root: str,
        train: Sequence[Mapping[str, str]],
        val: Sequence[Mapping[str, str]] | None,
        prompts_per_step: int,
        max_prompt_tokens: int,
        cached_samples: int,
        seed: int,
        heldout: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(prompts_per_step=prompts_per_step, max_prompt_tokens=max_prompt_tokens, seed=seed)
        at_least(0, cached_samples=cached_samples)
        if heldout is not None:
            if not {"count", "seed"} <= set(heldout):
                raise ConfigError(
                    f"data.heldout is {dict(heldout)}; expected count, seed and optionally difficulty, folder"
                )
            at_least(1, **{"heldout.count": heldout["count"]})
            if heldout.get("difficulty", "standard") not in DIFFICULTIES:
                names = ", ".join(DIFFICULTIES)
                raise ConfigError(f"data.heldout.difficulty is {heldout['difficulty']}; expected one of {names}")
        self.root = Path(root).expanduser()
        self.listed = {
            what: _data_files(self.root, what, entries) for what, entries in (("train", train), ("val", val or ()))
        }
        check_names(self.listed["train"], self.listed["val"])
        self.heldout = heldout
        self._cache: BoundedCache[str, Prompt] = BoundedCache(cached_samples)
        self._samples: dict[str, list[Sample]] = {}
        self._heldout_files: list[DataFile] = []

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
                exists; or the held-out scenes cannot be written.
        """
        self._write_heldout()
        return [check for what in ("train", "val", "heldout") if self._used(what) for check in self._check(what)]

    def train_samples(self) -> list[Sample]:
        """Return the checked training samples, in file order.

        Raises:
            DataError: the first problem.
        """
        return self._load("train")

    def val_samples(self) -> list[Sample]:
        """Return the checked samples of the validation files, then the held-out samples; an empty list without both.

        Raises:
            DataError: the first problem.
        """
        return [*self._load("val"), *self.heldout_samples()]

    def heldout_samples(self) -> list[Sample]:
        """Return the held-out samples of the shapes world; draw and write them on first use.

        The list is empty if the config has no ``heldout`` entry.

        Raises:
            DataError: the folder cannot be written, or contains files of these names with other content.
        """
        self._write_heldout()
        return self._load("heldout") if self._heldout_files else []

    def prompt(self, sample: Sample) -> Prompt:
        """Return the encoded prompt of a sample, from the cache if it is there.

        Raises:
            DataError: the image is invalid, or the prompt is too long.
        """
        return self._cache.get(sample.source, lambda: self._encoded(sample, load_image(sample)))

    def _write_heldout(self) -> None:
        if self.heldout is None or self._heldout_files:
            return
        difficulty = self.heldout.get("difficulty", "standard")
        count, seed = self.heldout["count"], self.heldout["seed"]
        folder = self.heldout.get("folder")
        drawn = draw_dataset(count=count, seed=seed, split="heldout", difficulty=DIFFICULTIES[difficulty])
        path = Path(folder) if folder else cache_folder() / "shapes" / f"{count}_{seed}_{difficulty}_{drawn.hash()}"
        files = drawn.write(path)
        self._heldout_files = [DataFile(file, path / "images") for file in files]

    def _load(self, what: str) -> list[Sample]:
        if what not in self._samples:
            checks = self._check(what) if self._used(what) else []
            raise_first([problem for check in checks for problem in check.problems])
            self._samples[what] = [sample for check in checks for sample in check.samples]
        return self._samples[what]

    def _used(self, what: str) -> bool:
        return what == "train" or bool(self._heldout_files if what == "heldout" else self.listed[what])

    def _check(self, what: str) -> list[FileCheck]:
        quiet = not is_first_process()
        if what == "heldout":
            files = self._heldout_files
        else:
            if not self.root.is_dir():
                raise DataError(f"the folder of data.root does not exist; {FETCH_HINT}", str(self.root))
            files = find_files(self.listed[what], what, quiet=quiet)
        encode = self.prompt if self._encode else None
        return check_files(files, encode=encode, count_image_tokens=self._count_image_tokens, quiet=quiet)

    def _stream(self) -> PromptStream:
        return PromptStream(len(self._load("train")), self.prompts_per_step, self.seed)

    def _prompts_at(self, index: int) -> list[Prompt]:
        return [self.prompt(self._load("train")[index])]


def _data_files(root: Path, what: str, entries: Sequence[Mapping[str, str]]) -> list[DataFile]:
    for index, entry in enumerate(entries):
        if (
            not isinstance(entry, Mapping)
            or set(entry) != {"file", "images"}
            or not all(isinstance(value, str) for value in entry.values())
        ):
            raise ConfigError(f"data.{what}[{index}] is {entry}; expected {{file: NAME.jsonl, images: FOLDER}}")
    return [DataFile(root / entry["file"], root / entry["images"]) for entry in entries]
