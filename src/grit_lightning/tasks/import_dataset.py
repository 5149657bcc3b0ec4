"""``task=import``: turn another project's data set into our JSONL and images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from grit_lightning.app import config
from grit_lightning.app.output_folder import require_name, require_writable
from grit_lightning.app.overrides import is_default_output, output_path
from grit_lightning.data.importing.formats import FORMATS
from grit_lightning.data.importing.writer import Import, Settings, State
from grit_lightning.errors import ConfigError
from grit_lightning.system.locks import held
from grit_lightning.system.printable import printable
from grit_lightning.system.slow import counted

BOXES = ("pixels", "xywh", "share", "thousandths")
"""Values of ``task.boxes``."""


def import_data(
    cfg: DictConfig, *, format: str, files: str | Sequence[str], images: str | None, boxes: str | None, split: str
) -> Path:
    """Import files into ``out`` and print what was left out; the same command goes on after a kill.

    Args:
        cfg: the composed config.
        format: name of the layout, one of ``FORMATS``.
        files: JSONL or parquet files, or one of them.
        images: folder to which paths of images are relative; ``None`` for that of the first file.
        boxes: how boxes are written, one of ``BOXES``, where the format does not say; otherwise ``None``.
        split: name of the split and of the output file.

    Returns:
        The JSONL file.

    Raises:
        UserError: a setting, a file or the folder cannot be used, or no row could be imported.
    """
    config.check(cfg, "task")
    settings = _settings(format, files, images, boxes, split)
    if is_default_output():
        raise ConfigError("task=import writes a data set: give its folder as out=DIR")
    out = output_path(cfg)
    require_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    with held(out / f".import_{split}.lock", busy=f"another task=import is writing {out}"):
        job = Import(out, settings)
        if job.records.exists():
            raise ConfigError(f"{job.records} exists: the import is done; give another out=… or task.split=…")
        state = _run(job)
    _report(job, state)
    if not state.imported:
        raise ConfigError(f"no row could be imported: {job.left_out} says why, row by row")
    return job.records


def _settings(format: str, files: str | Sequence[str], images: str | None, boxes: str | None, split: str) -> Settings:
    if format not in FORMATS:
        raise ConfigError(f"task.format is {format}; expected one of {', '.join(FORMATS)}")
    if boxes is not None and boxes not in BOXES:
        raise ConfigError(f"task.boxes is {boxes}; expected one of {', '.join(BOXES)}, or null")
    paths = [Path(file).expanduser().absolute() for file in ([files] if isinstance(files, str) else files)]
    if not paths:
        raise ConfigError("task.files is empty; expected the JSONL or parquet files to import")
    return Settings(
        format=format,
        files=tuple(map(str, paths)),
        images=str(Path(images).expanduser().absolute() if images else paths[0].parent),
        boxes=boxes,  # type: ignore[arg-type]
        split=require_name(split),
    )


def _run(job: Import) -> State:
    names = printable(", ".join(Path(file).name for file in job.settings.files))
    with counted(f"importing {names}", None, "row", quiet=False) as count:
        try:
            return job.run(lambda state: count(1))
        except KeyboardInterrupt:
            sys.exit("stopped: run the same command to continue")
        except OSError as error:
            raise ConfigError(f"{job.out} cannot be written: {error.strerror} ({error.filename})") from error


def _report(job: Import, state: State) -> None:
    count = sum(state.left_out.values())
    print(f"{state.imported} rows imported, {count} left out")
    for reason, number in sorted(state.left_out.items(), key=lambda item: -item[1]):
        print(f"  {number:6d}  {printable(reason)}")
    if count:
        print(f"each row left out, with its line and field: {job.left_out}")
    use = "val" if job.settings.split == "val" else "train"
    print(f"written to {job.records}; use it with data.{use}={job.records}")
