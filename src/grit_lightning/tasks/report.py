"""``task=report``: write one HTML page about a run, an evaluation, a comparison or a sweep, or a gallery."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from grit_lightning.app import config
from grit_lightning.app.overrides import is_default_output, output_path
from grit_lightning.app.sweeps import failures_of, jobs_of
from grit_lightning.errors import ConfigError
from grit_lightning.evaluation.comparison.sources import find
from grit_lightning.evaluation.predictions import read_predictions
from grit_lightning.report.comparison_page import comparison_page
from grit_lightning.report.gallery import gallery
from grit_lightning.report.run_page import evaluation_page, run_page
from grit_lightning.report.sweep_page import sweep_page
from grit_lightning.runs import run_folder as runs
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.disk import disk_refusal
from grit_lightning.system.files import write_atomic
from grit_lightning.system.jsonl import parse_object
from grit_lightning.system.slow import announced
from grit_lightning.tasks.compare import SOURCES, compare_paths, compared_paths
from grit_lightning.tasks.evaluate_file import name_problems

FILE = "report.html"


def write_report(cfg: DictConfig) -> Path:
    """Write the page to ``out``, or to ``report.html`` in the folder of ``run``; print and return its path.

    ``run`` is a run, an evaluation, a file of predictions, the folder of a comparison or of a sweep. ``runs`` are
    evaluations to compare, as for ``task=compare``. With ``out=FILE.md`` it is a gallery of a run's held-out answers in
    Markdown, with its pictures in the folder ``FILE`` beside it.

    Raises:
        UserError: ``run`` is none of these, a file cannot be read, or the page cannot be written.
    """
    config.check(cfg, "task")
    if (cfg.run is None) == (not cfg.runs):
        raise ConfigError("expected what the page is about: run=RUN, or 'runs=[A,B]' for a comparison")
    resamples = cfg.evaluation.resamples
    if cfg.run is not None and output_path(cfg).suffix.lower() == ".md":
        return _write_gallery(runs.open_run(Path(cfg.run).expanduser()), output_path(cfg))
    with announced("writing the report"):
        if cfg.run is None:
            text, folder = comparison_page(compare_paths(compared_paths(cfg.runs), resamples=resamples)), None
        else:
            text, folder = _page(Path(cfg.run).expanduser().absolute(), resamples)
    target = folder / FILE if folder is not None and is_default_output() else output_path(cfg)
    return _write(target if target.suffix.lower() == ".html" else target / FILE, text)


def write_run_report(run: RunFolder, *, resamples: int) -> Path:
    """Write the page about a run into its folder; print and return its path.

    Raises:
        UserError: a file of the run cannot be read, or the page cannot be written.
    """
    with announced("writing the report"):
        text = run_page(run, resamples=resamples)
    return _write(run.report_file.absolute(), text)


def _page(given: Path, resamples: int) -> tuple[str, Path]:
    """Return the page about what lies at a path, and the folder that it belongs to."""
    run = RunFolder(given)
    if run.manifest_file.is_file():
        return run_page(run, resamples=resamples), given
    if (sources := given / SOURCES).is_file():
        paths = compared_paths(parse_object(sources.read_bytes(), str(sources)).get("runs", []))
        return comparison_page(compare_paths(paths, resamples=resamples)), given
    if jobs := jobs_of(given):
        return sweep_page(given, jobs, failures_of(given)), given
    source = find(given)
    predictions, problems = read_predictions(source.file)
    name_problems(problems)
    return evaluation_page(source.file, predictions, resamples=resamples), source.file.parent


def _write_gallery(run: RunFolder, target: Path) -> Path:
    folder = target.with_suffix("")
    text, pictures = gallery(run, Path(folder.name))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in pictures.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return _write(target, text)


def _write(target: Path, text: str) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, text)
    except OSError as error:
        refusal = disk_refusal(error, target) or f"{target} cannot be written: {error.strerror}"
        raise ConfigError(f"{refusal}; give another file as out=…") from error
    print(f"report       {target} ({len(text.encode()) / 1e6:.1f} MB)")
    return target
