"""Data module of the shapes world's endless lessons (:mod:`.lessons`), for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grit_lightning.data.prompt_datamodule import PromptDataModule
from grit_lightning.data.shapes.drawing import draw_scene
from grit_lightning.data.shapes.lessons import Curriculum, Lesson, lessons
from grit_lightning.data.shapes.scenes import DIFFICULTIES
from grit_lightning.data.stream import PromptStream
from grit_lightning.errors import ConfigError
from grit_lightning.types import ImageFile, Prompt, Sample


class LessonStream(PromptStream):
    """Stream that visits every scene once, in order."""

    def sample_index(self, step: int, slot: int) -> int:
        """Return the index of the scene in a slot of a step."""
        return step * self.prompts_per_step + slot


class LessonDataModule(PromptDataModule):
    """Lessons generated on demand: there are no files, the lessons never end, and no scene repeats.

    The schedules ``few_shapes``, ``answering`` and ``difficulties`` are lists of phases, in ascending order of their
    steps. The last two must begin at step 0.

    Args:
        scenes_per_step: number of scenes per optimizer step, over all ranks; each scene comes with several lessons.
        max_prompt_tokens: upper limit on a prompt's tokens, image tokens included; a longer prompt is an error.
        seed: seed of the scenes.
        few_shapes: phases ``{"until_step": ..., "shapes": ...}``: scenes before ``until_step`` have at most ``shapes``
            shapes and no questions. Scenes after the last phase come with questions.
        answering: phases ``{"from_step": ..., "share": ...}``: probability, 0 to 1, that a scene's third lesson is its
            question, answered like a pretrained model that seldom points. Otherwise the shapes are listed.
        difficulties: phases ``{"from_step": ..., "name": ...}``: difficulty of the scenes, by its name in
            ``shapes.scenes.DIFFICULTIES``.
        listings_until_step: first step at which shapes are no longer listed; the lesson asks where some are instead.
        prompts: the prompts ``grounded`` (GRIT's) and ``plain`` (the question alone), each with a ``template`` that
            contains ``{question}``.
        grounded_share: probability, 0 to 1, that GRIT's prompt is answered in grounded form.
        prefetch_steps, workers: as in :class:`PromptDataModule`.

    Raises:
        ConfigError: a value is out of range, a schedule does not begin at step 0, or a difficulty is unknown.
    """

    def __init__(
        self,
        *,
        scenes_per_step: int,
        max_prompt_tokens: int,
        seed: int,
        few_shapes: Sequence[Mapping[str, int]],
        answering: Sequence[Mapping[str, float]],
        difficulties: Sequence[Mapping[str, Any]],
        listings_until_step: int,
        prompts: Mapping[str, Mapping[str, str]],
        grounded_share: float,
        prefetch_steps: int = 1,
        workers: int = 4,
    ) -> None:
        super().__init__(
            prompts_per_step=scenes_per_step,
            max_prompt_tokens=max_prompt_tokens,
            seed=seed,
            prefetch_steps=prefetch_steps,
            workers=workers,
        )
        if not 0 <= grounded_share <= 1:
            raise ConfigError(f"data.grounded_share is {grounded_share}; expected 0 to 1")
        for what, phases in (("answering", answering), ("difficulties", difficulties)):
            if not phases or phases[0]["from_step"] != 0:
                raise ConfigError(f"data.{what} must begin with from_step: 0")
        for phase in difficulties:
            if phase["name"] not in DIFFICULTIES:
                raise ConfigError(f"data.difficulties names {phase['name']}; expected one of {', '.join(DIFFICULTIES)}")
        self.curriculum = Curriculum(
            few_shapes=tuple((phase["until_step"] * scenes_per_step, phase["shapes"]) for phase in few_shapes),
            answering=tuple((int(phase["from_step"]) * scenes_per_step, phase["share"]) for phase in answering),
            difficulties=tuple(
                (phase["from_step"] * scenes_per_step, DIFFICULTIES[phase["name"]]) for phase in difficulties
            ),
            listings=listings_until_step * scenes_per_step,
            prompts={name: prompt["template"] for name, prompt in prompts.items()},
            grounded_share=grounded_share,
        )

    def train_samples(self) -> list[Sample]:
        """Return an empty list, because lessons are generated and not read from files."""
        return []

    def val_samples(self) -> list[Sample]:
        """Return an empty list, because lessons have no validation samples."""
        return []

    def _stream(self) -> PromptStream:
        return LessonStream(num_samples=1, prompts_per_step=self.prompts_per_step, seed=self.seed)

    def _prompts_at(self, index: int) -> list[Prompt]:
        taught = lessons(self.seed, index, self.curriculum)
        image = draw_scene(taught[0].scene)
        return [self._encoded(_sample(lesson, index), [image]) for lesson in taught]


def _sample(lesson: Lesson, scene: int) -> Sample:
    return Sample(
        id=f"lessons/{scene}",
        question=lesson.prompt,
        answer="",
        images=(ImageFile(Path(f"scene_{scene}.png"), lesson.scene.size),),  # never written
        regions=(),
        dataset="shapes",
        split="train",
        source=f"lessons, scene {scene}",
        completion=lesson.completion,
    )
