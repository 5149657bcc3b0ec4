"""``task=evaluate run=FILE``: compute the metrics of stored predictions, without a model."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from grit_lightning.app import config
from grit_lightning.app.output_folder import refuse_taken, require_writable
from grit_lightning.app.overrides import is_given
from grit_lightning.data.file_datamodule import GroundedQADataModule
from grit_lightning.errors import DataError
from grit_lightning.evaluation import published
from grit_lightning.evaluation.evaluation_folder import EvaluationFolder
from grit_lightning.evaluation.intervals import intervals
from grit_lightning.evaluation.metrics import Metrics, summary
from grit_lightning.evaluation.predictions import Prediction, read_predictions
from grit_lightning.evaluation.tables import overview
from grit_lightning.system.files import write_atomic
from grit_lightning.system.printable import printable_lines

log = logging.getLogger(__name__)

NAMED = 10
"""Number of problems that are logged one by one; further ones are only counted."""


def is_predictions(path: Path) -> bool:
    """Tell whether a path holds predictions instead of a model: a JSONL file, or the folder of an evaluation."""
    if path.is_dir():
        folder = EvaluationFolder(path)
        return folder.settings_file.is_file() or folder.predictions_file.is_file()
    return path.suffix == ".jsonl"


def evaluate_file(cfg: DictConfig) -> dict[str, Metrics]:
    """Print the metrics, by dataset, of the predictions in a file or an evaluation folder, and return them.

    If the command line chooses ``data``, only predictions for its held-out samples count; other predictions, and
    samples without a prediction, are logged. With ``out``, ``metrics.json`` is written there.

    Raises:
        UserError: ``run`` holds no readable prediction, or none for a held-out sample.
    """
    path = Path(cfg.run).expanduser().absolute()
    path = EvaluationFolder(path).predictions_file if path.is_dir() else path
    out = Path(cfg.out).expanduser().absolute()
    if is_given("out"):
        refuse_taken(out)
        require_writable(out)
    predictions, problems = read_predictions(path)
    if not predictions:
        first = f": {problems[0]}" if problems else ""
        raise DataError(f"holds no prediction that can be used{first}", str(path))
    if is_given("data"):
        predictions, more = _of_data(cfg, predictions, path)
        problems += more
    try:
        settings = _settings(path)
    except DataError as error:  # metrics do not depend on the settings
        settings, problems = None, [*problems, error]
    name_problems(problems)
    metrics = summary(predictions)
    found = intervals(predictions, resamples=cfg.evaluation.resamples)
    notes = "".join(f"\n{line}" for line in published.notes(settings, predictions))
    text = f"{path}, {len(predictions)} predictions\n\n{overview(metrics, found)}{notes}"
    print(printable_lines(text))
    if is_given("out"):
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"metrics": metrics, "intervals": found}, indent=2, allow_nan=False)
        write_atomic(EvaluationFolder(out).metrics_file, text + "\n")
        print(f"\nwritten to {out}")
    return metrics


def name_problems(problems: Sequence[DataError]) -> None:
    """Log what was left out: the first :data:`NAMED` problems one by one, then the number of the others."""
    for problem in problems[:NAMED]:
        log.warning("left out: %s", problem)
    if len(problems) > NAMED:
        log.warning("and %d more problems like these", len(problems) - NAMED)


def _settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of the evaluation folder that the predictions file belongs to; ``None`` for a lone file."""
    folder = EvaluationFolder(path.parent)
    return folder.settings() if path == folder.predictions_file else None


def _of_data(
    cfg: DictConfig, predictions: Sequence[Prediction], path: Path
) -> tuple[list[Prediction], list[DataError]]:
    """Return the predictions for the data's held-out samples, and what does not match.

    There is a problem for each predicted sample that the data lacks, and for each sample of the data without a
    prediction.
    """
    datamodule: GroundedQADataModule = instantiate(config.check(cfg, "data")["data"])
    asked = dict.fromkeys(sample.id for sample in datamodule.val_samples())
    answered = dict.fromkeys(one["sample_id"] for one in predictions)
    kept = [one for one in predictions if one["sample_id"] in asked]
    if not kept:
        first, other = next(iter(answered)), next(iter(asked), "none")
        reason = f"no prediction is for a sample of the data: the file has sample {first}, the data has {other}"
        raise DataError(reason, str(path))
    problems = [DataError(f"sample {name} is not in the data", str(path)) for name in answered if name not in asked]
    problems += [DataError(f"sample {name} has no prediction", str(path)) for name in asked if name not in answered]
    return kept, problems
