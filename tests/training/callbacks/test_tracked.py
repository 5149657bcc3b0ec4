"""Tests of what the trackers receive, read back from the files of TensorBoard and of Weights & Biases (offline)."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from PIL import Image

from grit_lightning.errors import ConfigError
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.training.callbacks.tracked import TrackedConfig, TrackedExamples, flat
from support.pages import NASTY
from support.predicted import record
from support.rollouts import GOOD, SAMPLE, SCORED, UNSCORED, group


def examples(**changes: Any) -> TrackedExamples:
    given = {"every_n_steps": 2, "examples": 2, "longest_side": 100, "megabytes": 1.0} | changes
    return TrackedExamples(**given)


def tensorboard(folder: Path) -> TensorBoardLogger:
    return TensorBoardLogger(str(folder), name="", version="tensorboard", default_hp_metric=False)


def trainer(logger: Any, step: int = 1, **changes: Any) -> SimpleNamespace:
    given = {"loggers": [logger], "global_step": step, "max_steps": 40, "is_global_zero": True} | changes
    return SimpleNamespace(**given)


def rollouts(tmp_path: Path, step: int, text: str = GOOD.text, question: str = SAMPLE.question) -> dict[str, Any]:
    """Return what a training step of three groups returned."""
    image = tmp_path / "cat.jpg"
    if not image.is_file():
        Image.effect_noise((640, 480), 90).convert("RGB").save(image)
    groups = []
    for slot in range(3):
        one = group(slot, (replace(GOOD, text=text), GOOD))
        sample = replace(SAMPLE, id=f"tally/{slot}", question=question, images=(replace(SAMPLE.images[0], path=image),))
        groups.append(replace(one, prompt=replace(one.prompt, sample=sample)))
    scores = [(SCORED, UNSCORED)] * 3
    advantages = torch.tensor([[0.75, float("nan")]] * 3)
    return {"output": SimpleNamespace(step=step, groups=groups, scores=scores, advantages_P_G=advantages)}


def stored(folder: Path) -> tuple[dict[str, list[tuple[int, bytes]]], dict[str, list[tuple[int, str]]]]:
    """Return images and texts that TensorBoard reads, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    images = {tag: [(one.step, one.encoded_image_string) for one in events.Images(tag)] for tag in tags["images"]}
    texts = {
        tag: [(one.step, one.tensor_proto.string_val[0].decode()) for one in events.Tensors(tag)]
        for tag in tags["tensors"]
    }
    return images, texts


def test_tensorboard_gets_some_rollouts_every_few_steps(tmp_path: Path) -> None:
    logger, callback = tensorboard(tmp_path), examples()
    for step in (1, 2, 3, 4):
        callback.on_train_batch_end(trainer(logger, step), None, rollouts(tmp_path, step))
    logger.finalize("success")
    images, texts = stored(tmp_path / "tensorboard")
    assert set(images) == {"rollout/example_1", "rollout/example_2"}
    assert [step for step, _ in images["rollout/example_1"]] == [1, 3]
    picture = Image.open(io.BytesIO(images["rollout/example_1"][0][1]))
    assert (picture.format, picture.size) == ("JPEG", (100, 75))
    ((step, text), _) = texts["rollout/example_2/text_summary"]
    assert step == 1
    assert "    sample: tally/1\n" in text
    assert "    question: How many cats?\n" in text
    assert '"label": "cat"} [40, 8, 30, 20]</think>' in text
    assert "    reward: 1.5\n" in text
    assert "    advantage: +0.750" in text


def test_without_an_interval_there_are_ten_times_a_run_and_only_the_first_process_sends(tmp_path: Path) -> None:
    logger, callback = tensorboard(tmp_path), examples(every_n_steps=None)
    for step in range(1, 41):
        callback.on_train_batch_end(trainer(logger, step), None, rollouts(tmp_path, step))
    other = trainer(logger, 1, is_global_zero=False)
    callback.on_train_batch_end(other, None, rollouts(tmp_path, 99))
    for nothing in (None, {}):  # as a step of fine-tuning returns
        callback.on_train_batch_end(trainer(logger, 1), None, nothing)
    logger.finalize("success")
    images, _ = stored(tmp_path / "tensorboard")
    assert [step for step, _ in images["rollout/example_1"]] == list(range(1, 41, 4))


def test_held_out_answers_are_those_to_the_same_questions_each_time(tmp_path: Path) -> None:
    logger, callback = tensorboard(tmp_path), examples()
    answers = [record("<answer> 1 </answer>", sample_id=f"f/{index}") for index in range(30)]
    callback.held_out(trainer(logger, 0), answers)
    callback.held_out(trainer(logger, 5), answers[::-1])
    logger.finalize("success")
    images, texts = stored(tmp_path / "tensorboard")
    assert images == {}, "the image of these samples is not here"
    for tag in ("heldout/example_1/text_summary", "heldout/example_2/text_summary"):
        (first, second) = texts[tag]
        assert [first[0], second[0]] == [0, 5]
        assert first[1] == second[1]


def test_images_end_at_the_limit_and_texts_go_on(tmp_path: Path) -> None:
    logger, callback = tensorboard(tmp_path), examples(every_n_steps=1, megabytes=0.012)
    for step in range(1, 9):
        callback.on_train_batch_end(trainer(logger, step), None, rollouts(tmp_path, step))
    logger.finalize("success")
    images, texts = stored(tmp_path / "tensorboard")
    sizes = [len(data) for found in images.values() for _, data in found]
    assert 12_000 <= sum(sizes) < 12_000 + max(sizes)
    assert len(texts["rollout/example_1/text_summary"]) == 8
    after = examples()
    after.load_state_dict(callback.state_dict())
    assert after.state_dict()["left"] <= 0, "a resume does not begin again"


@pytest.mark.filterwarnings("ignore:html5lib:DeprecationWarning")
@pytest.mark.parametrize("nasty", [*NASTY, "# heading\n[link](javascript:alert(1))\n```\n", "x" * 100_000])
def test_texts_of_strangers_stay_text_in_tensorboard(tmp_path: Path, nasty: str) -> None:
    from tensorboard import plugin_util

    logger, callback = tensorboard(tmp_path), examples()
    callback.on_train_batch_end(trainer(logger), None, rollouts(tmp_path, 1, nasty, nasty))
    logger.finalize("success")
    ((_, text),) = stored(tmp_path / "tensorboard")[1]["rollout/example_1/text_summary"]
    assert len(text) < 110_000
    assert "\x1b" not in text
    assert all(line == "" or line.startswith("    ") for line in text.split("\n")), "one indented block"
    shown = plugin_util.markdown_to_safe_html(text)
    assert shown.startswith("<pre><code>")
    assert not any(f"<{tag}" in shown for tag in ("script", "img", "a ", "h1", "svg"))


def test_the_hyperparameters_stand_beside_the_metrics_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    (tmp_path / "config.yaml").write_text("seed: 3\noptimizer: {_target_: a.B, lr: 0.1}\ncallbacks: {x: 1}\n")
    logger = tensorboard(tmp_path)
    TrackedConfig(out=str(tmp_path)).on_fit_start(trainer(logger), None)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = events.summary_metadata
    content = found[metadata.SESSION_START_INFO_TAG].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert {name: value.number_value for name, value in start.items()} == {
        "seed": 3, "optimizer.lr": pytest.approx(0.1), "trainer.max_steps": 40,
    }  # fmt: skip
    content = found[metadata.EXPERIMENT_TAG].plugin_data.content
    metrics = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    assert "heldout/overall/accuracy" in {one.name.tag for one in metrics}
    assert events.Tags()["scalars"] == [], "no value is made up"


def test_a_nested_config_becomes_flat() -> None:
    given = {"a": {"b": 1, "_target_": "x.Y", "c": None}, "d": [1, {"e": 2}], "f": True}
    assert flat(given) == {"a.b": 1, "a.c": "None", "d": "[1, {'e': 2}]", "f": True}


def test_other_loggers_and_none_get_nothing(tmp_path: Path) -> None:
    callback = examples()
    callback.on_train_batch_end(trainer(CSVLogger(str(tmp_path))), None, rollouts(tmp_path, 1))
    callback.on_train_batch_end(trainer(None, loggers=[]), None, rollouts(tmp_path, 1))
    TrackedConfig(out=str(tmp_path)).on_fit_start(trainer(CSVLogger(str(tmp_path))), None)
    assert callback.state_dict()["left"] == 1e6


@pytest.mark.parametrize("name", ["every_n_steps", "examples", "longest_side"])
def test_a_value_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"callbacks\.examples\.{name} is 0, expected a whole number of at least 1"):
        examples(**{name: 0})


# ---- Weights & Biases ----


def histories(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the history rows of an offline run: records in blocks of 32 KiB, in the format of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found = wandb_internal_pb2.Record.FromString(parts)
            parts = b""
            if found.WhichOneof("record_type") == "history":
                row: dict[str, Any] = {}
                for one in found.history.item:
                    key, *inner = one.nested_key or [one.key]
                    value = json.loads(one.value_json)
                    if inner:
                        row.setdefault(key, {})[inner[0]] = value
                    else:
                        row[key] = value
                yield row


@pytest.mark.filterwarnings("default")
def test_wandb_gets_images_a_table_and_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "config.yaml").write_text("seed: 3\noptimizer: {lr: 0.1}\n")
    logger, callback = WandbLogger(save_dir=str(tmp_path), offline=True, project="x"), examples()
    TrackedConfig(out=str(tmp_path)).on_fit_start(trainer(logger), None)
    for step in (1, 3):
        callback.on_train_batch_end(trainer(logger, step), None, rollouts(tmp_path, step))
    assert logger.experiment.config["optimizer"] == {"lr": 0.1}
    logger.experiment.finish()
    wandb.teardown()  # until its own process ends, the file may lack its last records
    (folder,) = (RunFolder(tmp_path).path / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    rows = [row for row in histories(file) if "rollout/examples" in row or "rollout/completions" in row]
    assert {row["trainer/global_step"] for row in rows} == {1, 3}
    media = [row["rollout/examples"] for row in rows if "rollout/examples" in row]
    assert [one["captions"][0].split(" <think>")[0] for one in media] == ["How many cats?"] * 2
    pictures = [folder / "files" / name for one in media for name in one["filenames"]]
    assert [Image.open(picture).format for picture in pictures] == ["JPEG"] * 4
    tables = sorted((folder / "files").rglob("*.table.json"))
    assert len(tables) == 2
    by_step = {table["data"][0][0]: table for table in map(json.loads, (one.read_text() for one in tables))}
    columns = ["step", "sample", "question", "reference", "completion", "scores", "reward", "advantage"]
    assert by_step[1]["columns"] == columns
    assert [row[1] for row in by_step[3]["data"]] == ["tally/0", "tally/1"]
