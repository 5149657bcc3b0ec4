"""Tests of the results of a finished run."""

import json
import math

import pytest

from grit_lightning.errors import DataError
from grit_lightning.runs.results import heldout_metrics, read_results, write_results


def test_results_are_read_as_written_without_what_is_not_finite(run):
    write_results(run, 7, {"reward/total/mean": 1.5, "policy/kl": math.nan, "policy/loss": math.inf})
    assert read_results(run) == {"step": 7, "metrics": {"reward/total/mean": 1.5}}


def test_a_run_that_has_not_finished_has_no_results(run):
    assert read_results(run) is None
    assert heldout_metrics(run) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "x", "metrics": {}}', '{"step": 1, "metrics": 3}'])
def test_another_file_of_that_name_is_named(run, text):
    run.results_file.write_text(text)
    with pytest.raises(DataError, match=r"results\.json: not the results of a run"):
        read_results(run)


def test_held_out_metrics_are_those_after_training(run):
    run.evaluation.mkdir()
    after = {"overall": {"accuracy": 0.5, "entropy": None}, "vsr": {"accuracy": 0.25}}
    run.before_and_after_file.write_text(json.dumps({"before": {"overall": {"accuracy": 0.1}}, "after": after}))
    assert heldout_metrics(run) == {"heldout/accuracy": 0.5, "heldout/vsr/accuracy": 0.25}
