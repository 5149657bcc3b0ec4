"""``task=init``: write an example data set and a commented config to start from."""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from grit_lightning.app.output_folder import claimed
from grit_lightning.app.overrides import is_default_output, output_path
from grit_lightning.data.shapes.files import draw_dataset
from grit_lightning.errors import ConfigError
from grit_lightning.system.files import replacing_folder
from grit_lightning.system.paths import asset

_PER_KIND = {"train": 4, "val": 2}
"""Questions of each kind, counting and spatial, by file."""


def init_project(cfg: DictConfig) -> Path:
    """Write ``train.jsonl``, ``val.jsonl``, ``images/``, a config and a page about them to ``out``; return ``out``.

    Raises:
        ConfigError: ``out`` is not given, is not empty, or cannot be written.
    """
    if is_default_output():
        raise ConfigError("task=init writes an example data set and config: give their folder as out=DIR")
    with claimed(output_path(cfg)) as folder:
        try:
            with replacing_folder(folder) as empty:
                _write(empty, folder)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {error.strerror} ({error.filename})") from error
    print((folder / "README.md").read_text(encoding="utf-8"))
    print(f"written to {folder}")
    return folder


def _write(empty: Path, folder: Path) -> None:
    (empty / "images").mkdir()
    (empty / "conf" / "experiment").mkdir(parents=True)
    for name, count in _PER_KIND.items():
        drawn = draw_dataset(count=count, seed=7, split="train" if name == "train" else "heldout")
        for image, pixels in drawn.images.items():
            pixels.save(empty / "images" / image)
        records = [json.loads(line) for text in drawn.texts.values() for line in text.decode().splitlines()]
        (empty / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    for template, target in (("README.md", "README.md"), ("mine.yaml", "conf/experiment/mine.yaml")):
        text = asset(f"init/{template}").read_text(encoding="utf-8").replace("{folder}", str(folder))
        (empty / target).write_text(text, encoding="utf-8")
