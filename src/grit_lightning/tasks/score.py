"""``task=score``: score saved rollouts with another reward or judge and compare with the stored scores; no model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm  # type: ignore[import-untyped]

from grit_lightning.app import config
from grit_lightning.app.output_folder import claimed, require_name
from grit_lightning.app.overrides import (
    changed_run_config,
    chosen_options,
    given_overrides,
    is_default_output,
    is_given,
    is_sweep,
    output_path,
)
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.judge.llm import LLMJudge
from grit_lightning.rewards.rescoring import changes, report
from grit_lightning.rewards.rescoring.changes import Rescored
from grit_lightning.rewards.rescoring.report import ScoreComparison
from grit_lightning.rewards.rescoring.stored import Stored, count_lines, files_of, read, run_of
from grit_lightning.rewards.weighted_sum import Rewards
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import replacing_folder
from grit_lightning.system.printable import printable_lines
from grit_lightning.system.tables import excerpt as excerpt_of
from grit_lightning.types import Score

AT_ONCE = 256
"""Completions scored together: questions to a judge over HTTP are sent for all of them before waiting for replies."""

PROGRESS_AFTER = 2.0
"""Seconds until a progress bar appears."""


class Rescoring(NamedTuple):
    """Result of a re-scoring.

    Attributes:
        folder: folder of ``scores.jsonl``, ``comparison.md``, ``comparison.csv`` and ``config.yaml``.
        rows: stored and new score of each completion.
        comparison: comparison of the stored scores with the new ones.
    """

    folder: Path
    rows: list[Rescored]
    comparison: ScoreComparison


class Options(NamedTuple):
    """Options of the task; values live in ``conf/task/score.yaml``.

    Attributes:
        most_changed: number of completions listed in the comparison.
        excerpt: characters of each listed completion's text.
    """

    most_changed: int
    excerpt: int


def score_rollouts(cfg: DictConfig, *, most_changed: int, excerpt: int) -> Rescoring:
    """Score the completions of ``run`` again and compare the new scores with the stored ones.

    Reward and judge are those of the run's own config, changed by the command line's overrides; for a file outside a
    run, those of the composed config. The output folder is ``out`` if given, else a new folder in the run's
    ``scores/``, called ``name`` if given. Other files of the run stay untouched, and files are written once everything
    is scored.

    Args:
        cfg: the composed config.
        most_changed: number of completions listed in the comparison.
        excerpt: characters of each listed completion's text.

    Raises:
        UserError: the rollouts, a config value or the output folder cannot be used.
    """
    require_name(cfg.name)
    options = _checked(Options(most_changed, excerpt), cfg)
    path = Path(cfg.run).expanduser().absolute()
    files = files_of(path)
    run = run_of(path)
    folder, is_default = _folder(cfg, run)
    with claimed(folder, next_free=is_default) as free:
        return _rescored(cfg, options, path, files, run, free)


def _rescored(
    cfg: DictConfig, options: Options, path: Path, files: Sequence[Path], run: RunFolder | None, folder: Path
) -> Rescoring:
    if run is not None:
        cfg = changed_run_config(cfg, run, given_overrides())
    values = config.check(cfg, "reward", "judge")
    judge = instantiate(values["judge"])
    if isinstance(judge, LLMJudge):
        judge.probe()
    rewards: Rewards = instantiate(values["reward"])
    torn: list[DataError] = []
    try:
        rows = [
            _row(stored, new, options.excerpt)
            for stored, new in _scored(rewards, _whole(read(files), torn), count_lines(files))
        ]
    except KeyboardInterrupt:
        sys.exit("stopped: nothing was written; run the same command to start again")
    if not rows:
        raise DataError("no rollouts here.", str(path))
    result = Rescoring(folder, rows, _compared(path, rows, torn, rewards, options.most_changed))
    _write(result, cfg, path)
    print(printable_lines(f"{report.terminal(result.comparison)}\n\nwritten to {folder}"))
    return result


def _checked(options: Options, cfg: DictConfig) -> Options:
    config.check(cfg, "task")
    for name, least in Options(most_changed=0, excerpt=1)._asdict().items():
        value = getattr(options, name)
        if value < least:
            raise ConfigError(f"task.{name} is {value}, expected a whole number of at least {least}")
    if cfg.run is None:
        raise ConfigError("run is null, expected a run folder or a JSONL file of rollouts: run=RUN")
    return options


def _folder(cfg: DictConfig, run: RunFolder | None) -> tuple[Path, bool]:
    """Return the output folder, and whether it is a default, which may get the next free name."""
    if run is None or is_given("out"):
        return output_path(cfg), is_default_output() and not is_sweep()
    return run.scores / (cfg.name if is_given("name") else "_".join(chosen_options("reward", "judge")) or "again"), True


def _whole(items: Iterable[Stored | DataError], torn: list[DataError]) -> Iterator[Stored]:
    """Yield the completions, and collect the errors of truncated lines in ``torn``."""
    for item in items:
        if isinstance(item, DataError):
            torn.append(item)
        else:
            yield item


def _scored(rewards: Rewards, completions: Iterator[Stored], total: int) -> Iterator[tuple[Stored, Score]]:
    """Yield each completion with its new score, in order, holding at most :data:`AT_ONCE` of them in memory."""
    silent = not sys.stderr.isatty()
    with tqdm(total=total, desc="scoring", unit="completion", delay=PROGRESS_AFTER, disable=silent) as progress:
        while window := list(islice(completions, AT_ONCE)):
            scores = rewards.score_all((stored.sample, stored.completion) for stored in window)
            yield from zip(window, scores, strict=True)
            progress.update(len(window))


def _row(stored: Stored, new: Score, length: int) -> Rescored:
    excerpt = excerpt_of(stored.completion.text, length)
    return Rescored(stored.step, stored.slot, stored.index, stored.sample.id, stored.score, new, excerpt)


def _compared(
    path: Path, rows: Sequence[Rescored], torn: Sequence[DataError], rewards: Rewards, count: int
) -> ScoreComparison:
    total = " + ".join(f"{weight:g} · {name}" for name, weight in rewards.weights.items() if weight) or "0"
    return ScoreComparison(
        what=f"{len(rows)} completions of {path}, scored again.\nThe new total is {total}.",
        components=changes.component_changes(rows),
        ranking=changes.ranking(rows),
        most_changed=changes.most_changed(rows, count),
        torn=torn,
    )


def _write(result: Rescoring, cfg: DictConfig, path: Path) -> None:
    used = OmegaConf.create({"run": str(path)} | config.check(cfg, "reward", "judge"))
    files = {
        "scores.jsonl": "".join(f"{report.score_line(row)}\n" for row in result.rows),
        "comparison.csv": report.csv_text(result.comparison.components),
        "comparison.md": report.markdown(result.comparison),
        "config.yaml": OmegaConf.to_yaml(used),
    }
    try:
        with replacing_folder(result.folder) as folder:
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        reason = f"{error.strerror} ({error.filename})"
        raise ConfigError(f"{result.folder} cannot be written: {reason}; give another folder as out=…") from error
