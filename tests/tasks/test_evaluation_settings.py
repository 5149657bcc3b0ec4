"""Tests of the settings that determine the predictions of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from grit_lightning.tasks.evaluation_settings import data_settings, model_settings, weights_identity
from grit_lightning.types import ImageFile, Region, Sample
from support.samples import one_image

SAMPLE = one_image(
    "f/1", "How many?", "2", Path("/a/x.png"), (9, 8), ((1.0, 2.0, 3.0, 4.0),), "vsr", "val", "f.jsonl:1"
)
OTHER = replace(SAMPLE, id="g/1", dataset="tallyqa", source="g.jsonl:1")


def sha(*samples: Sample) -> str:
    return data_settings(samples)["sha256"]


def test_data_settings_name_the_data_sets_in_order_and_count_the_samples() -> None:
    settings = data_settings([SAMPLE, OTHER, replace(SAMPLE, id="f/2")])
    assert (settings["datasets"], settings["samples"]) == (["tallyqa", "vsr"], 3)
    assert len(settings["sha256"]) == 16
    assert int(settings["sha256"], 16) >= 0


def test_equal_samples_have_equal_hashes_wherever_their_files_lie() -> None:
    moved = replace(SAMPLE, images=(ImageFile(Path("/b/x.png"), (9, 8)),), source="elsewhere.jsonl:7", split="test")
    assert sha(SAMPLE, OTHER) == sha(moved, OTHER)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "f/2"},
        {"dataset": "gqa"},
        {"question": "How many cats?"},
        {"answer": "3"},
        {"images": (ImageFile(Path("/a/y.png"), (9, 8)),)},
        {"images": (ImageFile(Path("/a/x.png"), (8, 9)),)},
        {"regions": (Region((1.0, 2.0, 3.0, 4.5)),)},
        {"regions": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_of_a_sample_changes_the_hash(change: dict) -> None:
    assert sha(replace(SAMPLE, **change), OTHER) != sha(SAMPLE, OTHER)


def test_the_hash_depends_on_the_order_and_the_number_of_samples() -> None:
    assert len({sha(SAMPLE, OTHER), sha(OTHER, SAMPLE), sha(SAMPLE), sha(SAMPLE, SAMPLE), sha()}) == 5


def test_the_identity_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    backbone = SimpleNamespace(checkpoint=str(folder))
    before = weights_identity(backbone, None, None)
    assert before["checkpoint"] == "model"
    assert weights_identity(backbone, None, None) == before
    (folder / "model.safetensors").write_bytes(b"12")
    assert weights_identity(backbone, None, None)["files"] != before["files"]


def test_the_identity_of_a_run_is_its_manifest_and_step_and_that_of_a_hub_model_its_id(tmp_path: Path) -> None:
    backbone = SimpleNamespace(checkpoint="someone/model")
    assert weights_identity(backbone, None, None) == {"checkpoint": "someone/model"}
    (tmp_path / "manifest.json").write_text("{}")
    run = SimpleNamespace(manifest_file=tmp_path / "manifest.json")
    # printf '{}' | sha256sum
    assert weights_identity(backbone, run, SimpleNamespace(step=7)) == {
        "checkpoint": "someone/model",
        "run": "44136fa355b3678a",
        "step": 7,
    }


def test_model_settings_hold_what_changes_an_answer_and_nothing_else() -> None:
    model = {
        "min_pixels": 1, "max_pixels": 2, "max_tiles": 3, "dtype": "bfloat16", "random_weights_seed": None,
        "gradient_checkpointing": True,
    }  # fmt: skip
    assert model_settings({"model": model, "trainer": {"precision": "32-true", "devices": 2}}) == {
        "model": {
            "min_pixels": 1, "max_pixels": 2, "max_tiles": 3, "dtype": "bfloat16", "random_weights_seed": None,
        },
        "precision": "32-true",
    }  # fmt: skip
