"""Callbacks that send to the trackers what is not a number: the config, and example completions with their images."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from omegaconf import OmegaConf
from PIL import Image

from grit_lightning.data.subset import drawn_ids
from grit_lightning.errors import ConfigError, DataError
from grit_lightning.evaluation.predictions import Prediction
from grit_lightning.report.choice import first_of_each
from grit_lightning.report.completions import score_texts
from grit_lightning.report.drawing import drawn, jpeg
from grit_lightning.runs.records import records
from grit_lightning.runs.run_folder import RunFolder
from grit_lightning.system.printable import printable_lines

log = logging.getLogger(__name__)

_GROUPS = ("seed", "model", "peft", "data", "reward", "module", "objective", "rollout", "optimizer", "scheduler")
"""Groups of the config that are hyperparameters."""

_COMPARED = ("heldout/overall/accuracy", "heldout/overall/grounding_iou", "reward/total/mean", "policy/kl")
"""Metrics beside which TensorBoard shows the hyperparameters of each run."""

_LONGEST_TEXT = 4000
"""Characters of a completion that are sent."""


class TrackedConfig(Callback):
    """Sends the hyperparameters to TensorBoard (its table of runs) and to Weights & Biases (the run's config).

    Args:
        out: the run folder.
    """

    def __init__(self, *, out: str) -> None:
        self.run = RunFolder(Path(out))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send them before the first step."""
        if not trainer.is_global_zero or not self.run.config_file.is_file():
            return
        every: Any = OmegaConf.to_container(OmegaConf.load(self.run.config_file))
        chosen = {name: every[name] for name in _GROUPS if every.get(name) is not None}
        chosen["trainer"] = {"max_steps": trainer.max_steps}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                from torch.utils.tensorboard.summary import hparams

                # log_hyperparams would also log a value for each of the metrics, before the first step.
                for summary in hparams(flat(chosen), dict.fromkeys(_COMPARED, 0.0))[:2]:
                    logger.experiment._get_file_writer().add_summary(summary)
            elif isinstance(logger, WandbLogger):
                logger.log_hyperparams(chosen)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | bool | int | float]:
    """Return the values of a nested config by dotted key; lists and null as text, and no names of classes."""
    found: dict[str, str | bool | int | float] = {}
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str | bool | int | float) else str(value)
    return found


class TrackedExamples(Callback):
    """Sends example completions to TensorBoard and Weights & Biases: images with boxes, texts and rewards.

    Rollouts are sent every so many steps, as ``rollout/example_N``; held-out answers whenever they are given, always
    those to the same questions, as ``heldout/example_N``.

    Args:
        every_n_steps: steps between examples of rollouts; ``null`` for ten times a run.
        examples: number of completions each time, of different prompts.
        longest_side: longest side of an image in pixels.
        megabytes: bytes of images in a run, in millions, after which only texts are sent.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(self, *, every_n_steps: int | None, examples: int, longest_side: int, megabytes: float) -> None:
        least = {"every_n_steps": every_n_steps, "examples": examples, "longest_side": longest_side}
        for name, value in least.items():
            if value is not None and value < 1:
                raise ConfigError(f"callbacks.examples.{name} is {value}, expected a whole number of at least 1")
        self.every_n_steps = every_n_steps
        self.examples = examples
        self.longest_side = longest_side
        self._left = megabytes * 1e6

    def state_dict(self) -> dict[str, Any]:
        """Return the bytes of images that may still be sent, for the checkpoint."""
        return {"left": self._left}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them from a checkpoint."""
        self._left = state_dict["left"]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        """Send the first completions of some of the first process's prompts."""
        every = self.every_n_steps or max(1, trainer.max_steps // 10)
        done = outputs.get("output") if isinstance(outputs, Mapping) else None
        if done is None or not trainer.is_global_zero or (trainer.global_step - 1) % every:
            return  # fine-tuning has no rollouts
        groups, scores = done.groups[: self.examples], done.scores[: self.examples]
        rows = records(done.step, groups, scores, done.advantages_P_G[: self.examples])
        self._send(trainer, "rollout", [row for row in rows if row["completion_index"] == 0], done.step)

    def held_out(self, trainer: pl.Trainer, predictions: Sequence[Prediction]) -> None:
        """Send the answers to some of the held-out questions, on the first process."""
        by_sample = first_of_each(predictions)
        chosen = [by_sample[name] for name in drawn_ids(by_sample, self.examples)]
        self._send(trainer, "heldout", chosen, trainer.global_step)

    def _send(self, trainer: pl.Trainer, group: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
        loggers = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger | WandbLogger)]
        images = [self._image(row) for row in rows] if loggers else []
        for logger in loggers:
            if isinstance(logger, TensorBoardLogger):
                _send_to_tensorboard(logger, group, rows, images, step)
            else:
                _send_to_wandb(logger, group, rows, images, step)

    def _image(self, row: Mapping[str, Any]) -> bytes | None:
        """Return the JPEG of a completion's images; ``None`` if one cannot be read, or enough have been sent."""
        if self._left <= 0:
            return None
        try:
            image = jpeg(drawn(row, longest_side=self.longest_side), quality=88)
        except DataError as error:
            log.warning("no example image of %s: %s", row["sample_id"], error)
            return None
        self._left -= len(image)
        return image


def _send_to_tensorboard(
    logger: TensorBoardLogger, group: str, rows: Sequence[Mapping[str, Any]], images: Sequence[bytes | None], step: int
) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

    for number, (row, image) in enumerate(zip(rows, images, strict=True), start=1):
        tag = f"{group}/example_{number}"
        # TensorBoard renders Markdown: as an indented block, a text of a stranger stays text.
        lines = [line for name, text in _texts(row).items() for line in (*f"{name}: {text}".split("\n"), "")]
        logger.experiment.add_text(tag, "\n".join(f"    {line}" for line in lines), step)
        if image is not None:
            width, height = Image.open(io.BytesIO(image)).size
            picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=image)
            # add_image would store it as PNG, of ten times the size.
            summary = Summary(value=[Summary.Value(tag=tag, image=picture)])
            logger.experiment._get_file_writer().add_summary(summary, step)


def _send_to_wandb(
    logger: WandbLogger, group: str, rows: Sequence[Mapping[str, Any]], images: Sequence[bytes | None], step: int
) -> None:
    texts = [_texts(row) for row in rows]
    shown = [(one, image) for one, image in zip(texts, images, strict=True) if image is not None]
    if shown:
        pictures = [Image.open(io.BytesIO(image)) for _, image in shown]
        captions = [f"{one['question']} {one['completion']}" for one, _ in shown]
        logger.log_image(f"{group}/examples", pictures, step=step, caption=captions, file_type=["jpg"] * len(shown))
    columns = ["step", *(texts[0] if texts else ())]
    logger.log_table(f"{group}/completions", columns, [[step, *one.values()] for one in texts], step=step)


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what is said of a completion, by its heading, without characters that are not printable."""
    text = row["text"]
    more = f" … {len(text) - _LONGEST_TEXT} more characters" if len(text) > _LONGEST_TEXT else ""
    scores = row.get("rewards") or row.get("scores") or {}
    said = {
        "sample": row["sample_id"],
        "question": row["question"],
        "reference": row["answer"],
        "completion": text[:_LONGEST_TEXT] + more,
        "scores": "  ".join(f"{name} {value}" for name, value in score_texts(scores)),
    }
    if "advantage" in row:
        said["reward"] = "unscored" if row["reward"] is None else f"{row['reward']:.4g}"
        said["advantage"] = "-" if row["advantage"] is None else f"{row['advantage']:+.3f}"
    return {name: printable_lines(value) for name, value in said.items()}
