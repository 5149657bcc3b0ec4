"""The endless lessons of the shapes world (``synthetic.lessons``) as training data."""

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
from grit_lightning.types import Prompt, Sample


class LessonStream(PromptStream):
    """Every scene once, in order."""

    def sample_index(self, step: int, slot: int) -> int:
        """The scene shown in this slot of this step."""
        return step * self.prompts_per_step + slot


class LessonDataModule(PromptDataModule):
    """Lessons drawn as they are needed: no files, no end, no example twice.

    Args:
        scenes_per_step: scenes of one optimizer step, over all ranks; each comes with several lessons.
        max_prompt_tokens: a longer prompt is an error, image tokens included.
        seed: of the scenes.
        few_shapes: ``{"until_step": ..., "shapes": ...}``, by ascending step: how many shapes at most the scenes of the
            steps before have; later scenes are those of questions.
        answering: ``{"from_step": ..., "share": ...}``, by ascending step, the first from 0: how often a question is
            answered as a pretrained model would, 0 to 1; else the scene's shapes are listed.
        difficulties: ``{"from_step": ..., "name": ...}``, by ascending step, the first from 0: how hard scenes are, a
            name of ``synthetic.scenes.DIFFICULTIES``.
        listings_until_step: from this step on, shapes are no longer listed.
        prompts: GRIT's prompt as ``grounded`` and the question alone as ``plain``, each with ``{question}`` in it.
        grounded_share: how often GRIT's prompt is answered in grounded form, 0 to 1.

    Raises:
        ConfigError: a value out of range.
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
    ) -> None:
        super().__init__(prompts_per_step=scenes_per_step, max_prompt_tokens=max_prompt_tokens, seed=seed)
        if not 0 <= grounded_share <= 1:
            raise ConfigError(f"data.grounded_share is {grounded_share}; expected 0 to 1")
        for what, phases in (("answering", answering), ("difficulties", difficulties)):
            if not phases or phases[0]["from_step"] != 0:
                raise ConfigError(f"data.{what} does not begin from_step 0")
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
        """Nothing: there are no files."""
        return []

    def val_samples(self) -> list[Sample]:
        """Nothing."""
        return []

    def _stream(self) -> PromptStream:
        return LessonStream(num_samples=1, prompts_per_step=self.prompts_per_step, seed=self.seed)

    def _prompts_at(self, index: int) -> list[Prompt]:
        taught = lessons(self.seed, index, self.curriculum)
        image = draw_scene(taught[0].scene)
        return [self._encoded(_sample(lesson, index), image) for lesson in taught]


def _sample(lesson: Lesson, scene: int) -> Sample:
    return Sample(
        id=f"lessons/{scene}",
        question=lesson.prompt,
        answer="",
        image=Path(f"scene_{scene}.png"),  # never written
        size=lesson.scene.size,
        boxes=(),
        dataset="shapes",
        split="train",
        source=f"lessons, scene {scene}",
        completion=lesson.completion,
    )
