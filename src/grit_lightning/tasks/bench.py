"""``task=bench``: evaluate a model on a suite under several prompts, and write one table."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from grit_lightning.app.output_folder import require_name
from grit_lightning.app.overrides import given_overrides, output_path, task_options
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.comparison import report
from grit_lightning.evaluation.comparison.differences import EvaluationComparison, compare_columns
from grit_lightning.evaluation.comparison.sources import Column, find, read
from grit_lightning.report.comparison_page import comparison_page
from grit_lightning.system.files import write_atomic
from grit_lightning.system.printable import printable_lines
from grit_lightning.tasks.evaluate import evaluate_model
from grit_lightning.tasks.evaluate_file import name_problems
from grit_lightning.tasks.fetch import fetch_data

log = logging.getLogger(__name__)

OWN = "own"
"""Name of the folder and column of the model's own prompt."""

_NOT_PASSED = ("task=", "task.prompts=", "task.max_samples=", "suite", "out=", "name=")
"""Beginnings of overrides that are for the benchmark, and not for its evaluations."""


class Benchmark(NamedTuple):
    """Result of a benchmark.

    Attributes:
        folder: folder of ``bench.md``, ``bench.csv``, ``report.html`` and of an evaluation for each prompt.
        comparison: the evaluations, compared with the first.
    """

    folder: Path
    comparison: EvaluationComparison


def run_benchmark(cfg: DictConfig, *, prompts: Sequence[str | None], max_samples: int | None) -> Benchmark:
    """Evaluate the config's model or, with ``run``, a run's policy on a suite under each prompt; write one table.

    Each evaluation is that of ``task=evaluate`` and lies in a folder below ``out``. A benchmark that was stopped goes
    on when the same command is given with its ``out``: answers that are there are not given again, and the table is
    the same, byte by byte.

    Args:
        cfg: the composed config, with the suite.
        prompts: names of the prompts, ``None`` for the model's own. The first is what others are compared with.
        max_samples: number of questions, always the same subset; ``None`` for all.

    Raises:
        UserError: a prompt is given twice, or an evaluation cannot be made.
    """
    require_name(cfg.name)
    names = [OWN if prompt is None else str(prompt) for prompt in prompts]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"task.prompts is {names}, expected one or more different prompts")
    folder = output_path(cfg)
    passed = [one for one in given_overrides() if not one.startswith(_NOT_PASSED)]
    own = ["task=evaluate", *cfg.suite.overrides, *passed]
    limit = [] if max_samples is None else [f"task.max_samples={max_samples}"]
    log.info("%s, in %s; after a kill, the same command with out=%s goes on", cfg.suite.title, folder, folder)
    if cfg.suite.fetch:
        _fetch(cfg.suite.overrides)
    for number, (name, prompt) in enumerate(zip(names, prompts, strict=True), start=1):
        chosen = [] if prompt is None else [f"prompt={prompt}"]
        overrides = [*own, *limit, *chosen, f"out={folder / name}"]
        log.info("%d of %d: %s", number, len(names), " ".join(overrides))
        with _as_given(overrides) as composed:
            evaluate_model(composed, max_samples=max_samples)
    comparison = compare_columns([_column(folder, name) for name in names], resamples=cfg.evaluation.resamples)
    page = _markdown(cfg.suite.title, comparison, ["python -m grit_lightning", *map(shlex.quote, [*own, *limit])])
    write_atomic(folder / "bench.md", page)
    write_atomic(folder / "bench.csv", report.csv_text(comparison))
    write_atomic(folder / "report.html", comparison_page(comparison))
    print(f"\n{printable_lines(report.table(comparison))}\n\nwritten to {folder}")
    return Benchmark(folder, comparison)


@contextmanager
def _as_given(overrides: Sequence[str]) -> Iterator[DictConfig]:
    """Compose the config of a command, and let it be the command line within the block."""
    usual = HydraConfig.instance().cfg
    composed = compose("config", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().cfg = OmegaConf.masked_copy(composed, "hydra")
    OmegaConf.set_readonly(HydraConfig.instance().cfg.hydra, True)
    try:
        yield OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    finally:
        HydraConfig.instance().cfg = usual


def _fetch(overrides: Sequence[str]) -> None:
    with _as_given(["task=fetch", *overrides]) as composed:
        try:
            fetch_data(composed, **task_options(composed))
        except SystemExit:
            log.warning("not all of the data could be fetched; sets that are not whole are left out")


def _column(folder: Path, name: str) -> Column:
    column, problems = read(find(folder / name), name)
    name_problems(problems)
    return column


def _markdown(title: str, comparison: EvaluationComparison, command: Sequence[str]) -> str:
    """Return the table and how it was made, without anything that differs from run to run."""
    first = comparison.columns[0]
    lines = [
        f"# Benchmark: {title}",
        "",
        f"    {' '.join(command)}",
        "",
        f"- **{first.name}**: {first.how()}",
        *(f"- **{column.name}**: the same under prompt={column.name}" for column in comparison.columns[1:]),
        "",
        *report.markdown_table(comparison),
    ]
    return printable_lines("\n".join(lines)) + "\n"
