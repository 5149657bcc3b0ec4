"""What ``data.train`` and ``data.val`` list: files, folders and, for validation, generated questions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.data.shapes.scenes import DIFFICULTIES
from grit_lightning.errors import ConfigError
from grit_lightning.system.paths import cache_folder

Entries = str | Sequence[str | Mapping[str, Any]]
"""A path, or a list of paths and of ``{"file": ..., "images": ...}`` or, for validation, ``{"shapes": ...}``."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A JSONL file and the folder to which its ``image`` fields are relative."""

    file: Path
    images: Path


@dataclass(frozen=True, slots=True)
class DrawnQuestions:
    """Questions about generated scenes of the shapes world, which share no image with its training scenes.

    Attributes:
        count: number of questions of each kind.
        seed: seed of the scenes.
        difficulty: difficulty of the scenes, one of ``DIFFICULTIES``.
        folder: folder to write them to; ``None`` for a subfolder of the cache folder, named by a hash of the scenes.
    """

    count: int
    seed: int
    difficulty: str
    folder: str | None

    def files(self) -> list[DataFile]:
        """Draw the scenes, write what is not there yet, and return the files.

        Raises:
            DataError: the folder cannot be written, or contains files of these names with other content.
        """
        difficulty = DIFFICULTIES[self.difficulty]
        drawn = draw_dataset(count=self.count, seed=self.seed, split="heldout", difficulty=difficulty)
        name = f"{self.count}_{self.seed}_{self.difficulty}_{drawn.hash()}"
        path = Path(self.folder) if self.folder else cache_folder() / "shapes" / name
        return [DataFile(file, path / "images") for file in drawn.write(path)]


class Listed(NamedTuple):
    """Entries of ``data.train`` or ``data.val``.

    Attributes:
        files: the data files; they need not exist.
        drawn: the generated questions.
    """

    files: list[DataFile]
    drawn: list[DrawnQuestions]


def listed(root: Path, what: str, entries: Entries | None) -> Listed:
    """Read the entries of ``data.train`` or ``data.val``.

    A path is relative to the working directory, as on any command line; ``file`` and ``images`` of a mapping are
    relative to ``root``. A folder stands for its ``train.jsonl`` (for ``val``: ``val.jsonl``) or, without one, for all
    its JSONL files. The images of a file that is given as a path lie in its folder or in ``images`` beside it.

    Args:
        root: the folder of ``data.root``.
        what: ``train`` or ``val``.
        entries: the config's value; ``None`` for nothing.

    Raises:
        ConfigError: an entry has another form.
    """
    files: list[DataFile] = []
    drawn: list[DrawnQuestions] = []
    for index, entry in enumerate([entries] if isinstance(entries, str) else entries or ()):
        if isinstance(entry, str):
            files += _of_path(Path(entry).expanduser().absolute(), what)
        elif isinstance(entry, Mapping) and set(entry) == {"file", "images"} and _are_text(entry.values()):
            files.append(DataFile(root / entry["file"], root / entry["images"]))
        elif what == "val" and isinstance(entry, Mapping) and "shapes" in entry:
            drawn.append(_drawn(entry, f"data.val[{index}]"))
        else:
            raise ConfigError(
                f"data.{what}[{index}] is {entry}; expected a JSONL file, a folder, or {{file: FILE, images: FOLDER}}"
            )
    return Listed(files, drawn)


def _of_path(path: Path, what: str) -> list[DataFile]:
    if not path.is_dir():
        return [DataFile(path, _images_of(path))]
    usual = path / f"{what}.jsonl"
    found = [usual] if usual.is_file() else sorted(path.glob("*.jsonl"))
    return [DataFile(file, _images_of(file)) for file in found or [usual]]


def _images_of(file: Path) -> Path:
    """Return the folder of a file's images: ``images`` beside it if the first record's image is there, else its own."""
    beside = file.parent / "images"
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = json.loads(next(line for line in lines if line.strip()))
        image = first["images"][0]["image"] if "images" in first else first["image"]
        return beside if (beside / image).is_file() or not (file.parent / image).is_file() else file.parent
    except (OSError, ValueError, LookupError, TypeError, StopIteration):  # the records are checked later, by line
        return beside


def _drawn(entry: Mapping[str, Any], key: str) -> DrawnQuestions:
    if unknown := set(entry) - {"shapes", "seed", "difficulty", "folder"}:
        raise ConfigError(f"{key}.{unknown.pop()} is unknown: expected shapes, seed, difficulty, folder")
    questions = DrawnQuestions(
        entry["shapes"], entry.get("seed", 1), entry.get("difficulty", "standard"), entry.get("folder")
    )
    for name, value, least in (("shapes", questions.count, 1), ("seed", questions.seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"{key}.{name} is {value!r}, expected a whole number of at least {least}")
    if questions.difficulty not in DIFFICULTIES:
        raise ConfigError(f"{key}.difficulty is {questions.difficulty}; expected one of {', '.join(DIFFICULTIES)}")
    return questions


def _are_text(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
