"""The LightningDataModule: GRIT files in, this rank's prompts out."""

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
    """Keeps the last ``capacity`` items used. Unlike ``functools.lru_cache``, it can be pickled to a spawned process.

    Args:
        capacity: number of items; 0 keeps none.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._items: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Returns the item of ``key``, made now if it is not kept."""
        value = self._items.pop(key) if key in self._items else make()
        self._items[key] = value
        while len(self._items) > self.capacity:
            self._items.popitem(last=False)
        return value


class GroundedQADataModule(PromptDataModule):
    """Training, validation and held-out samples, each checked and encoded before the first step.

    ``attach`` gives it the model's encoder; without one it only reads and checks.

    Args:
        root: folder that relative paths of train and val are relative to.
        train: ``{"file": ..., "images": ...}`` for each JSONL file and its image folder; one that is absent,
            or whose folder is, is left out with a warning.
        val: the same for validation, or ``None``.
        prompts_per_step: prompts of one optimizer step, over all ranks.
        max_prompt_tokens: a longer prompt is an error, image tokens included.
        cached_samples: number of encoded prompts kept in memory.
        seed: of the order of samples.
        heldout: ``None``, or ``{"count": ..., "seed": ..., "difficulty": ..., "folder": ...}``: scenes of the shapes
            world that share no image with its training scenes, ``count`` of each kind of question, as hard as
            ``difficulty`` names (absent: ``standard``), written to ``folder`` (absent or ``None``: one in the cache
            folder, whose name tells these scenes from all others).

    Raises:
        ConfigError: a number out of range, or files that cannot be told apart.
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
                raise ConfigError(f"data.heldout is {dict(heldout)}; expected count, seed and, if you like, folder")
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
        """Checks everything that the stage will read: records, images, prompt lengths.

        Raises:
            DataError: the first problem; the message says how many more there are.
            ConfigError: fewer prompts than ranks.
        """
        for what in ("train", "val") if stage == "fit" else ("val",):
            self._load(what)
        if stage == "fit":
            self.require_prompts_for(self._rank_and_world_size()[1])

    def check(self) -> list[FileCheck]:
        """Checks every train, val and held-out file, and collects what they hold and every problem.

        Raises:
            DataError: root or every listed file is missing, so that there is nothing to check.
        """
        self._write_heldout()
        return [check for what in ("train", "val", "heldout") if self._used(what) for check in self._check(what)]

    def train_samples(self) -> list[Sample]:
        """The training samples, checked, in file order.

        Raises:
            DataError: the first problem.
        """
        return self._load("train")

    def val_samples(self) -> list[Sample]:
        """The samples of the validation files, checked, then the held-out ones; empty when there are neither.

        Raises:
            DataError: the first problem.
        """
        return [*self._load("val"), *self.heldout_samples()]

    def heldout_samples(self) -> list[Sample]:
        """The held-out samples of the shapes world, drawn and written on first use; empty when none are asked for.

        Raises:
            DataError: the folder cannot be written, or holds other files of these names.
        """
        self._write_heldout()
        return self._load("heldout") if self._heldout_files else []

    def prompt(self, sample: Sample) -> Prompt:
        """The sample as the model reads it; encoded once while it stays in the cache.

        Raises:
            DataError: the image cannot be used, or the prompt is too long.
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
