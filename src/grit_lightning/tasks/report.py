"""``task=report``: write one HTML page about a run or an evaluation."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from grit_lightning.app import config
from grit_lightning.app.overrides import is_default_output, output_path
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.comparison.sources import find
from grit_lightning.evaluation.predictions import read_predictions
from grit_lightning.report.run_page import predictions_page, run_page
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.files import write_atomic
from grit_lightning.system.slow import announced
from grit_lightning.tasks.evaluate_file import name_problems

FILE = "report.html"


def write_report(cfg: DictConfig) -> Path:
    """Write the page to ``out``, or ``report.html`` in the folder of ``run``; print and return its path.

    Raises:
        UserError: ``run`` is neither a run nor an evaluation, a file cannot be read, or the page cannot be written.
    """
    config.check(cfg, "task")
    given = Path(cfg.run).expanduser().absolute()
    run = RunFolder(given)
    with announced("writing the report"):
        if run.manifest_file.is_file():
            text, folder = run_page(run, resamples=cfg.evaluation.resamples), run.path
        else:
            source = find(given)
            predictions, problems = read_predictions(source.file)
            name_problems(problems)
            text = predictions_page(source.file, predictions, resamples=cfg.evaluation.resamples)
            folder = source.file.parent
    target = folder / FILE if is_default_output() else output_path(cfg)
    target = target / FILE if target.suffix.lower() != ".html" else target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, text)
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}; give another file as out=…") from error
    print(f"written to {target} ({len(text.encode()) / 1e6:.1f} MB)")
    return target
