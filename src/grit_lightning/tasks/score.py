"""``task=score``: saved rollouts under another reward or judge, compared with the scores they have. Needs no model."""

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
from grit_lightning.app.output_folder import refuse_taken, require_writable
from grit_lightning.app.overrides import changed_run_config, chosen_options, given_overrides, is_given, output_path
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.judge.llm import LLMJudge
from grit_lightning.rewards.rescoring import changes, report
from grit_lightning.rewards.rescoring.changes import Rescored
from grit_lightning.rewards.rescoring.report import ScoreComparison
from grit_lightning.rewards.rescoring.stored import Stored, count_lines, files_of, read, run_of
from grit_lightning.rewards.weighted_sum import Rewards
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import free_path, replacing_folder
from grit_lightning.system.tables import excerpt as excerpt_of
from grit_lightning.types import Score

AT_ONCE = 256
"""Completions scored together: a judge over HTTP is asked about all of them, then waited for."""

PROGRESS_AFTER = 2.0
"""Seconds after which a progress bar appears."""


class Rescoring(NamedTuple):
    """What a re-scoring leaves behind.

    Attributes:
        folder: where ``scores.jsonl``, ``comparison.md``, ``comparison.csv`` and ``config.yaml`` lie.
        rows: one for each completion.
        comparison: of the stored scores and the new ones.
    """

    folder: Path
    rows: list[Rescored]
    comparison: ScoreComparison


class Options(NamedTuple):
    """Of the task; values live in ``conf/task/score.yaml``."""

    most_changed: int
    excerpt: int


def score_rollouts(cfg: DictConfig, *, most_changed: int, excerpt: int) -> Rescoring:
    """Score the completions of ``rollouts`` under the config's reward and judge; of a run, under its own config's.

    The command line's ``reward``, ``judge`` and values take precedence. The folder is ``out`` where that is given, else
    a new one in the run's ``scores/``, called ``name`` where that is given. Nothing else in the run is touched, and
    nothing is written before all is scored.

    Args:
        cfg: the composed config.
        most_changed: completions listed in the comparison.
        excerpt: characters of the text of each.

    Raises:
        UserError: rollouts, a config value or a folder that cannot be used.
    """
    options = _checked(Options(most_changed, excerpt), cfg)
    path = Path(cfg.rollouts).expanduser().absolute()
    files = files_of(path)
    run = run_of(path)
    folder = _folder(cfg, run)
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
        sys.exit("stopped: nothing was written; the same command begins anew")
    if not rows:
        raise DataError("no rollouts here.", str(path))
    result = Rescoring(folder, rows, _compared(path, rows, torn, rewards, options.most_changed))
    _write(result, cfg, path)
    print(f"{report.terminal(result.comparison)}\n\nwritten to {folder}")
    return result


def _checked(options: Options, cfg: DictConfig) -> Options:
    config.check(cfg, "task")
    for name, least in Options(most_changed=0, excerpt=1)._asdict().items():
        value = getattr(options, name)
        if value < least:
            raise ConfigError(f"task.{name} is {value}, expected a whole number of at least {least}")
    if cfg.rollouts is None:
        raise ConfigError("rollouts is null, expected a run folder or a JSONL file of rollouts: rollouts=RUN")
    return options


def _folder(cfg: DictConfig, run: RunFolder | None) -> Path:
    """Where the comparison is to be written, which nothing is in the way of."""
    if run is None or is_given("out"):
        folder = output_path(cfg)
    else:
        name = cfg.name if is_given("name") else "_".join(chosen_options("reward", "judge")) or "again"
        if Path(name).name != name:
            raise ConfigError(f"name is {name!r}, expected the name of a folder in {run.scores}")
        folder = free_path(run.scores / name)
    refuse_taken(folder)
    require_writable(folder)
    return folder


def _whole(items: Iterable[Stored | DataError], torn: list[DataError]) -> Iterator[Stored]:
    """The completions, with what is torn put aside."""
    for item in items:
        if isinstance(item, DataError):
            torn.append(item)
        else:
            yield item


def _scored(rewards: Rewards, completions: Iterator[Stored], total: int) -> Iterator[tuple[Stored, Score]]:
    """Each completion with its new score, in order; a bounded number of them is held at once."""
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
    used = OmegaConf.create({"rollouts": str(path)} | config.check(cfg, "reward", "judge"))
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
