"""``task=compare``: compare evaluations on the same samples, without a model."""

from __future__ import annotations

import glob
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig

from grit_lightning.app import config
from grit_lightning.app.output_folder import claimed, require_name
from grit_lightning.app.overrides import is_default_output, is_sweep, output_path
from grit_lightning.app.sweeps import labels_of
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.evaluation.comparison import report
from grit_lightning.evaluation.comparison.differences import EvaluationComparison, compare_columns
from grit_lightning.evaluation.comparison.plot import plot_comparison
from grit_lightning.evaluation.comparison.sources import Column, Source, column_names, find, read
from grit_lightning.report.comparison_page import comparison_page
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import replacing_folder
from grit_lightning.system.printable import printable_lines
from grit_lightning.tasks.evaluate_file import name_problems

log = logging.getLogger(__name__)

SOURCES = "comparison.json"
"""File in a comparison's folder with the paths that were compared."""


class Compared(NamedTuple):
    """Result of a comparison.

    Attributes:
        folder: folder of ``report.html``, ``comparison.{md,csv,png,json}`` and ``flips.jsonl``.
        comparison: contents of these files.
    """

    folder: Path
    comparison: EvaluationComparison


def compare_evaluations(cfg: DictConfig, *, flips: int) -> Compared:
    """Compare predictions on the same samples, print the differences and write them to ``out``.

    Each entry of ``runs`` is an evaluation folder, a predictions file, or a run folder, which stands for its newest
    evaluation, or a pattern of such paths, such as ``sweep/*``. All later entries are compared with the first. Files
    are written once everything is compared.

    Args:
        cfg: the composed config.
        flips: number of samples to list that are right in one evaluation and wrong in the other.

    Raises:
        UserError: a config value, an entry of ``runs`` or the output folder cannot be used.
    """
    config.check(cfg, "task")
    if flips < 0:
        raise ConfigError(f"task.flips is {flips}, expected a whole number of at least 0")
    paths = compared_paths(cfg.runs)
    require_name(cfg.name)
    with claimed(output_path(cfg), next_free=is_default_output() and not is_sweep()) as folder:
        return _compared(paths, folder, flips, cfg.evaluation.resamples)


def _compared(paths: Sequence[Path], folder: Path, flips: int, resamples: int) -> Compared:
    try:
        comparison = compare_paths(paths, resamples=resamples)
        print(printable_lines(report.terminal(comparison, flips)))
        _write(folder, comparison, flips, paths)
    except KeyboardInterrupt:
        sys.exit("stopped: nothing was written; run the same command to start again")
    print(f"\nwritten to {folder}")
    return Compared(folder, comparison)


def compare_paths(paths: Sequence[Path], *, resamples: int) -> EvaluationComparison:
    """Compare the predictions of several runs, evaluations or files, and warn of what makes them not comparable."""
    comparison = compare_columns(_columns(paths), resamples=resamples)
    for pair in comparison.pairs:
        for caveat in pair.caveats:
            log.warning("%s", caveat)
    return comparison


def compared_paths(entries: Sequence[str]) -> list[Path]:
    """Return the paths of ``runs``; a pattern such as ``sweep/*`` stands for the runs and evaluations that match.

    Raises:
        ConfigError: a pattern matches nothing, or there are fewer than two paths.
    """
    paths: list[Path] = []
    for entry in entries:
        path = Path(entry).expanduser().absolute()
        if path.exists() or not any(mark in entry for mark in "*?["):
            paths.append(path)
            continue
        found = [Path(name) for name in glob.glob(str(path))]
        runs = [one for one in found if (one / "manifest.json").is_file() or (one / "evaluation.json").is_file()]
        if not runs:
            raise ConfigError(f"runs: {entry} matches no run and no evaluation")
        paths += sorted(runs, key=lambda one: (len(one.name), one.name))  # 2 before 10
    if len(paths) < 2:
        count = "1 entry" if len(paths) == 1 else "0 entries"
        raise ConfigError(f"runs has {count}, expected at least two to compare: 'runs=[A,B]'")
    return paths


def _names(sources: Sequence[Source]) -> list[str]:
    """Name the jobs of a sweep by the overrides in which they differ, and anything else by its path."""
    runs = [RunFolder(source.entry) for source in sources]
    if len({run.path.parent for run in runs}) == 1 and all(run.manifest_file.is_file() for run in runs):
        labels = labels_of(runs)
        if len(set(labels)) == len(labels):
            return labels
    return column_names(sources)


def _columns(entries: Sequence[Path]) -> list[Column]:
    sources = [find(path) for path in entries]
    columns: list[Column] = []
    problems: list[DataError] = []
    for source, name in zip(sources, _names(sources), strict=True):
        column, bad = read(source, name)
        columns.append(column)
        problems += bad
    name_problems(problems)
    return columns


def _write(path: Path, comparison: EvaluationComparison, flips: int, paths: Sequence[Path]) -> None:
    files = {
        SOURCES: json.dumps({"runs": [str(path) for path in paths]}) + "\n",
        "report.html": comparison_page(comparison),
        "comparison.md": printable_lines(report.markdown(comparison, flips)),
        "comparison.csv": report.csv_text(comparison),
        "flips.jsonl": report.flips_text(comparison),
    }
    try:
        with replacing_folder(path) as folder:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            plot_comparison(folder / "comparison.png", comparison)
    except OSError as error:
        reason = f"{error.strerror} ({error.filename})"
        raise ConfigError(f"{path} cannot be written: {reason}; give another folder as out=…") from error
