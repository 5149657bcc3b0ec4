"""The import of files, row after row: written so that it goes on where it was stopped, with the same result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from grit_lightning.data.importing.formats import FORMATS
from grit_lightning.data.importing.pictures import Pictures
from grit_lightning.data.importing.record import record_line
from grit_lightning.data.importing.rows import Row, rows
from grit_lightning.data.importing.sample import BoxForm, LeftOutError
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import write_atomic

_SAVED_EVERY = 100
"""Rows after which the state is saved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Choice of what is imported, and how.

    Attributes:
        format: name of the layout, a key of ``FORMATS``.
        files: paths of the files, in order.
        images: folder of the images that rows name by path.
        boxes: how boxes are written, where the format does not say.
        split: name of the split and of the output file.
    """

    format: str
    files: tuple[str, ...]
    images: str
    boxes: BoxForm | None
    split: str


@dataclass(slots=True)
class State:
    """Progress of an import.

    Attributes:
        file: index of the file that is read.
        row: number of its rows that are done.
        imported: rows that became records.
        left_out: rows that did not, by reason.
        sizes: bytes of the records and of the list of rows left out.
    """

    file: int = 0
    row: int = 0
    imported: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    sizes: tuple[int, int] = (0, 0)


class Import:
    """An import into a folder.

    Attributes:
        records: the JSONL file, which appears when the import is done.
        left_out: one line for each row that was left out, with source, field and reason; absent if none was. It lies in
            a subfolder, because ``data.train=FOLDER`` takes every JSONL file of a folder.

    Args:
        out: folder to write to.
        settings: what is imported.
    """

    def __init__(self, out: Path, settings: Settings) -> None:
        self.out = out
        self.settings = settings
        self.records = out / f"{settings.split}.jsonl"
        self.left_out = out / "left_out" / f"{settings.split}.jsonl"
        self._state_file = out / f".import_{settings.split}.json"
        self._pictures = Pictures(Path(settings.images), out / "images")

    def run(self, tell: Callable[[State], None]) -> State:
        """Import what is left, and return the final state. ``tell`` is called after each row.

        Raises:
            ConfigError: the folder holds an unfinished import with other settings.
            DataError: a file cannot be read.
        """
        state = self._begun()
        self.left_out.parent.mkdir(exist_ok=True)
        parts = [path.with_name(f".{path.name}.part") for path in (self.records, self.left_out)]
        opened = [_continued(path, size) for path, size in zip(parts, state.sizes, strict=True)]
        try:
            for source, row in self._rows(state):
                self._write(source, row, opened, state)
                tell(state)
                if state.row % _SAVED_EVERY == 0:
                    self._save(state, opened)
            self._save(state, opened)
        finally:
            for file in opened:
                file.close()
        for part, path in zip(parts, (self.records, self.left_out), strict=True):
            part.replace(path)
        if not state.left_out:
            self.left_out.unlink()
        self._state_file.unlink()
        return state

    def _begun(self) -> State:
        if not self._state_file.is_file():
            return State()
        try:
            saved = json.loads(self._state_file.read_text(encoding="utf-8"))
            state, settings = State(**saved["state"]), saved["settings"]
        except (ValueError, KeyError, TypeError) as error:
            message = f"not the state of an import ({error}): remove it to begin again"
            raise DataError(message, str(self._state_file)) from error
        if settings != _plain(self.settings):
            raise ConfigError(
                f"{self.out} holds an unfinished import with other settings, of {', '.join(settings['files'])}: give "
                f"these, another out=…, or remove {self._state_file}"
            )
        return state

    def _rows(self, state: State) -> Iterator[tuple[str, Row | DataError]]:
        for index in range(state.file, len(self.settings.files)):
            done = state.row if index == state.file else 0
            state.file, state.row = index, done
            for number, (source, row) in enumerate(rows(Path(self.settings.files[index])), start=1):
                if number > done:
                    state.row = number
                    yield source, row

    def _write(self, source: str, row: Row | DataError, opened: Sequence[BinaryIO], state: State) -> None:
        try:
            if isinstance(row, DataError):
                raise LeftOutError("", str(row).removeprefix(f"{row.source}: "))
            sample = FORMATS[self.settings.format](row, self.settings.boxes)
            name = Path(self.settings.files[state.file]).stem
            line = record_line(sample, self._pictures, dataset=name, split=self.settings.split)
            opened[0].write(line + b"\n")
            state.imported += 1
        except LeftOutError as error:
            entry = {"source": source, "field": error.field, "reason": error.reason}
            opened[1].write(json.dumps(entry).encode() + b"\n")
            kind = _kind(error)
            state.left_out[kind] = state.left_out.get(kind, 0) + 1

    def _save(self, state: State, opened: Sequence[BinaryIO]) -> None:
        for file in opened:
            file.flush()
            os.fsync(file.fileno())
        state.sizes = (opened[0].tell(), opened[1].tell())
        saved = {"settings": _plain(self.settings), "state": asdict(state)}
        write_atomic(self._state_file, json.dumps(saved) + "\n")


def _plain(settings: Settings) -> Mapping[str, Any]:
    plain: Mapping[str, Any] = json.loads(json.dumps(asdict(settings)))
    return plain


def _continued(path: Path, size: int) -> BinaryIO:
    """Open a file for appending after its first ``size`` bytes; what a killed process wrote after them is dropped."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _kind(error: LeftOutError) -> str:
    """Return the reason without the values of the row, so that equal reasons are counted together."""
    _, _, expected = error.reason.rpartition("; ")
    name = error.field.partition("[")[0]
    return f"{name}: {expected}" if name else expected
