"""Tests of published figures: shown for an evaluation by the same protocol on the same samples, and for no other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.evaluation.published import figures, matching, notes
from grit_lightning.evaluation.tables import TITLES
from grit_lightning.model.backbones.prompts import known_prompts, prompt_name, prompt_version
from grit_lightning.system.paths import conf_dir
from support.compared import SETTINGS, answers

GRIT_QWEN, GRIT_INTERNVL = "GRIT-20-Qwen2.5-VL-3B", "GRIT-20-InternVL-2B"
VSR_VAL = {f"vsr_val/{line}": 1.0 for line in range(1, 9)}
PROMPTS = sorted(file.stem for file in (conf_dir() / "prompt").glob("*.yaml"))


def settings(prompt: str = "grounded", **weights: Any) -> dict[str, Any]:
    """Return the settings of an evaluation judged by GPT-4o; by default of Qwen2.5-VL-3B-Instruct after 200 steps."""
    found = weights or {"checkpoint": "Qwen/Qwen2.5-VL-3B-Instruct", "run": "0a1b", "step": 200}
    judged = {"judge": "gpt-4o, prompt 0a1b", "prompt": {"version": known_prompts()[prompt]}, "weights": found}
    return copy.deepcopy({**SETTINGS, **judged})


UNTRAINED = settings("plain", checkpoint="Qwen/Qwen2.5-VL-3B-Instruct")


@pytest.mark.parametrize("name", PROMPTS)
def test_a_prompt_has_the_version_that_an_evaluation_records(compose_config: Callable[..., Any], name: str) -> None:
    prompt = compose_config(f"prompt={name}").prompt
    assert known_prompts()[name] == prompt_version(prompt.template, prompt.prefill)
    assert prompt_name(known_prompts()[name]) == name


def test_the_backbone_records_the_same_prompt_version(backbone: Any) -> None:
    assert backbone.prompt_version == known_prompts()["grounded"]
    assert prompt_name("of somebody's own") == "of somebody's own"


def test_every_figure_has_a_source_and_an_existing_prompt() -> None:
    for one in figures():
        assert one.source
        assert one.prompt in PROMPTS
        assert one.metric in TITLES
        assert 0 < one.value < 1


def test_table_1_of_the_paper_is_there() -> None:
    """Accuracy and IoU of each set: of both trained models, and accuracy of the untrained one asked directly."""
    table = {
        "vsr_val": (0.729, 0.325, 0.649, 0.495, 0.495), "tallyqa_val": (0.478, 0.447, 0.442, 0.324, 0.408),
        "gqa_val": (0.628, 0.485, 0.632, 0.457, 0.554), "mathvista_mini_val": (0.598, None, 0.482, None, None),
        "mme_val": (0.893, None, 0.820, None, None), "ovd_position_val": (None, 0.398, None, 0.560, None),
    }  # fmt: skip
    columns = [(GRIT_QWEN, "accuracy"), (GRIT_QWEN, "paper_iou"), (GRIT_INTERNVL, "accuracy"),
               (GRIT_INTERNVL, "paper_iou"), (None, "accuracy")]  # fmt: skip
    for file, values in table.items():
        for (released, metric), value in zip(columns, values, strict=True):
            found = [one.value for one in figures() if (one.file, one.released, one.metric) == (file, released, metric)]
            assert found == ([] if value is None else [value])
    assert len(figures()) == 1 + sum(value is not None for values in table.values() for value in values)


@pytest.mark.parametrize(
    ("made", "value"),
    [
        (settings(), 0.729),
        (settings(checkpoint="yfan1997/GRIT-20-Qwen2.5-VL-3B"), 0.729),
        (settings(checkpoint="GRIT-20-Qwen2.5-VL-3B", files="0a1b"), 0.729),
        (settings(checkpoint="yfan1997/GRIT-20-InternVL-2B"), 0.649),
        (settings(checkpoint="OpenGVLab/InternVL3-2B", run="0a1b", step=50), 0.649),
        (UNTRAINED, 0.495),
        (settings("plain", checkpoint="Qwen2.5-VL-3B-Instruct", run="0a1b", step=0), 0.495),
        (settings() | {"judge": "gpt-4o-2024-08-06, prompt 0a1b"}, 0.729),
        (settings() | {"judge": "openai/gpt-4o, prompt 0a1b"}, 0.729),
    ],
)
def test_an_evaluation_by_the_same_protocol_gets_the_published_figure(made: dict[str, Any], value: float) -> None:
    others = answers({"tallyqa_val/1": 1.0, "tallyqa_val/3": 1.0}, dataset="tallyqa")
    found = matching(made, answers(VSR_VAL) + others)
    assert {one.dataset for one in found} == {"vsr"}
    assert [one.figure.value for one in found if one.figure.metric == "accuracy"] == [value]


@pytest.mark.parametrize(
    "made",
    [
        None,
        {},
        settings("grounded_prefilled"),
        settings("plain"),
        settings() | {"prompt": {"version": "somebody's own"}},
        settings() | {"judge": "exact match"},
        settings() | {"judge": "gpt-4o-mini, prompt 0a1b"},
        settings() | {"judge": None},
        settings() | {"decoding": {"sampling": {"num_generations": 8}}},
        settings() | {"decoding": {}},
        settings() | {"model": {"random_weights_seed": 0}},
        settings(checkpoint="Qwen/Qwen2.5-VL-7B-Instruct", run="0a1b", step=200),
        settings(checkpoint="yfan1997/GRIT-20-Qwen2.5-VL-3B", run="0a1b", step=200),
        settings(checkpoint="yfan1997/GRIT-20-InternVL-2B", run="0a1b", step=200),
        settings(checkpoint="OpenGVLab/InternVL3-2B"),
        settings(checkpoint="Qwen/Qwen2.5-VL-3B-Instruct"),  # untrained, with GRIT's prompt
        settings("plain", checkpoint="Qwen/Qwen2.5-VL-3B-Instruct", run="0a1b", step=200),
        UNTRAINED | {"judge": "exact match"},
    ],
)
def test_another_protocol_gets_no_published_figure(made: dict[str, Any] | None) -> None:
    assert notes(made, answers(VSR_VAL)) == []


@pytest.mark.parametrize(
    "predictions",
    [
        [],
        answers(dict(list(VSR_VAL.items())[1:])),
        answers({f"vsr_val/{line}": 1.0 for line in range(1, 20, 2)}),  # some of them, evenly
        answers({f"shapes_vsr_heldout_20/{line}": 1.0 for line in range(1, 9)}),
        answers({f"vsr_cot_train_10/{line}": 1.0 for line in range(1, 11)}),
        answers(VSR_VAL | {"mine/1": 1.0}),
        answers({"vsr_val": 1.0}),
    ],
)
def test_other_samples_get_no_published_figure(predictions: list[Prediction]) -> None:
    assert notes(settings(), predictions) == []
    assert notes(UNTRAINED, predictions) == []


def test_the_note_names_metric_source_and_unknown_settings() -> None:
    assert notes(settings(), answers(VSR_VAL)) == [
        "published: vsr accuracy 0.729, Qwen2.5-VL-3B-Instruct after GRIT on 20 samples (arXiv 2505.15879; "
        "GPT-4o was asked in other words, decoding not known)",
        "published: vsr GRIT's script's IoU 0.325, Qwen2.5-VL-3B-Instruct after GRIT on 20 samples (Table 1 of arXiv "
        "2505.15879, second-hand; GPT-4o was asked in other words, decoding not known)",
    ]
    (_, line) = notes(UNTRAINED, answers(VSR_VAL))
    assert line.startswith("published: vsr accuracy, binarised 0.663, Qwen2.5-VL-3B-Instruct untrained (a user's ")
