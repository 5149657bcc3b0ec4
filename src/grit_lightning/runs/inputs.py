"""The inputs of a run: data files, images, prompt, reward and judge, compared when the run is continued.

Code is not part of them, and neither are values that the command line of a resume changes: those are asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any

from grit_lightning.errors import ConfigError, DataError
from grit_lightning.system.files import sha256, write_atomic
from grit_lightning.types import Sample

GROUPS = ("data", "prompt", "reward", "judge")
"""Parts of the inputs, which are also config groups and the values of ``allow_changed``."""

HASHED_IMAGES = 256
"""Most images whose content is compared. Those of a larger set are compared by size and modification time."""

Inputs = dict[str, dict[str, Any]]
"""By group: what the group is made of, by name. For data: SHA-256 by file; by image, its size, modification time in
nanoseconds and, of up to ``HASHED_IMAGES`` images, SHA-256. Names are relative to the data file's folder, which may be
moved."""


def describe(
    samples: Sequence[Sample], written: Mapping[str, Any], resolved: Mapping[str, Any], known: Inputs | None = None
) -> Inputs:
    """Return the inputs of a run, JSON-ready.

    Args:
        samples: the training samples.
        written: the groups of the config as written, with interpolations.
        resolved: the same groups with values, among which paths of prompt files are found.
        known: inputs of before. An image whose size and time are the same is not read again.
    """
    before = {} if known is None else known.get("data", {})
    files = dict.fromkeys(sample.source.rpartition(":")[0] for sample in samples)
    data: dict[str, Any] = {f"file {Path(file).name}": sha256(Path(file)) for file in files if Path(file).is_file()}
    images = {image.path: sample.source for sample in samples for image in sample.images}
    for path, source in images.items():
        name = f"image {_relative(str(path), os.path.dirname(source.rpartition(':')[0]))}"
        if entry := _image(path, before.get(name), hashed=len(images) <= HASHED_IMAGES):
            data[name] = entry
    others = {group: dict(_leaves(written.get(group))) | _text_files(resolved.get(group)) for group in GROUPS[1:]}
    return {"data": data} | others


def read(path: Path) -> Inputs | None:
    """Return the inputs stored in a file; ``None`` if there is no such file, as in runs of earlier versions.

    Raises:
        DataError: the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return {group: dict(saved[group]) for group in GROUPS}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not the inputs of a run ({error})", str(path)) from error


def write(path: Path, inputs: Inputs) -> None:
    """Write inputs as JSON."""
    write_atomic(path, json.dumps(inputs, indent=1) + "\n")


def require_same(run: Path, saved: Inputs | None, now: Inputs, allowed: Collection[str]) -> list[str]:
    """Compare the inputs of a run with those that it was started with.

    Args:
        run: the run folder, for messages.
        saved: the inputs that it was started with; ``None`` to compare nothing.
        now: the inputs of now.
        allowed: groups that may differ.

    Returns:
        A sentence for each allowed group that differs.

    Raises:
        ConfigError: a group differs that may not.
    """
    if saved is None:
        return []
    differences = [(group, found) for group in GROUPS if (found := _difference(saved[group], now[group]))]
    for group, found in differences:
        if group not in allowed:
            raise ConfigError(
                f"{run} was started with other inputs: {group}: {found}; to go on with what is there now, give "
                f"'allow_changed=[{group}]'"
            )
    return [f"{group}: {found}" for group, found in differences]


def _difference(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describe the first difference by name, and count the others; ``None`` if there is none."""
    names = [name for name in dict.fromkeys((*saved, *now)) if _content(saved.get(name)) != _content(now.get(name))]
    if not names:
        return None
    first = names[0]
    what = "is gone" if first not in now else "is new" if first not in saved else "has changed"
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{first} {what}{more}"


def _relative(path: str, folder: str) -> str:
    """Return the path relative to the folder; ``os.path.relpath`` is slow, and most images lie below the folder."""
    below = folder and path.startswith(f"{folder}/") and "/../" not in path
    return path[len(folder) + 1 :] if below else os.path.relpath(path, folder or os.curdir)


def _image(path: Path, known: Any, *, hashed: bool) -> list[Any] | None:
    """Return the entry of an image; ``None`` if there is no such file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    if not S_ISREG(stat.st_mode):
        return None
    size_and_time = [stat.st_size, stat.st_mtime_ns]
    if isinstance(known, list) and known[:2] == size_and_time:
        return known
    return [*size_and_time, sha256(path)] if hashed else size_and_time


def _content(value: Any) -> Any:
    return value[-1] if isinstance(value, list) and len(value) == 3 else value  # of an image with a hash, only that


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _text_files(node: Any) -> dict[str, str]:
    """Return the SHA-256 of each file that a value names, by the value's key: prompts of judges lie in files."""
    values = ((key, value) for key, value in _leaves(node) if isinstance(value, str) and "/" in value)
    return {f"file of {key}": sha256(Path(value)) for key, value in values if Path(value).is_file()}
