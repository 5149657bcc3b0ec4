"""Reward for boxes that show what the text calls them, scored by a judge that looks at each box on its own."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from concurrent.futures import Future

from PIL import Image

from grit_lightning.data.images import load_image
from grit_lightning.errors import ConfigError
from grit_lightning.grounding.image_boxes import image_of, in_pixels, valid_written
from grit_lightning.grounding.sections import parse
from grit_lightning.grounding.text_boxes import TextBox
from grit_lightning.judge.llm import LLMJudge
from grit_lightning.judge.prompt import PromptTemplate
from grit_lightning.judge.protocol import Judge, gather, then
from grit_lightning.types import Box, Completion, Sample


class Consistency:
    """Scores whether each box shows what the text calls it. The reward is the mean over the boxes, 0 to 1.

    The name of a box is its label, or the words before it. The judge sees the crop of the box and its name. A box that
    is inverted, empty, outside the image, repeated or without a name scores 0 and is not sent to the judge. A
    completion without boxes scores 0.

    This reward can be exploited. Nothing checks that the boxes matter to the question, so a policy may learn to write
    few, large, safe boxes with vague names ("object", "scene"); a box around the whole image fits the name of anything
    in it. Use the reward together with one for the answer. The crop and the name are untrusted input: text in the
    picture may contain instructions to the judge.

    Args:
        judge: a judge over HTTP whose model reads images.
        prompt: path of the prompt template, which contains ``{name}``.
        max_boxes: maximum number of boxes sent to the judge, to bound the cost; the boxes after them score 0.
        max_words: maximum number of words before a box without a label that form its name.
        max_side: maximum side of a crop in pixels; larger crops are scaled down.

    Raises:
        ConfigError: the judge cannot read images, or a value is invalid.
    """

    def __init__(self, *, judge: Judge, prompt: str, max_boxes: int, max_words: int, max_side: int) -> None:
        if not isinstance(judge, LLMJudge):
            raise ConfigError("reward consistency needs a vision judge: expected judge=openai, azure or local")
        for key, value in {"max_boxes": max_boxes, "max_words": max_words, "max_side": max_side}.items():
            if value < 1:
                raise ConfigError(f"reward consistency: {key} is {value}, expected at least 1")
        self._judge = judge
        self._prompt = PromptTemplate.read(prompt, ("name",), "reward consistency: prompt")
        self.max_boxes = max_boxes
        self.max_words = max_words
        self.max_side = max_side

    def __call__(self, sample: Sample, completion: Completion) -> float | Future[float | None]:
        """Send the boxes to the judge and return a future of the mean score, which is ``None`` if a box is unscored."""
        boxes = parse(completion.text).boxes
        flags = valid_written(boxes, completion.box_spaces)
        named = [(name_of(completion.text, boxes, index, self.max_words), found) for index, found in enumerate(boxes)]
        shown = [(name, found) for (name, found), valid in zip(named, flags, strict=True) if valid and name]
        if not shown:
            return 0.0
        crops = self._crops(sample, completion, [found for _, found in shown[: self.max_boxes]])
        asked = [self._ask(name, picture) for (name, _), picture in zip(shown, crops, strict=False)]
        return then(gather(asked), lambda scores: _mean(scores, len(boxes)))

    def _crops(self, sample: Sample, completion: Completion, found: Sequence[TextBox]) -> list[str]:
        """Return the crops of valid boxes."""
        images: dict[int, Image.Image] = {}
        crops = []
        for one in found:
            index = image_of(one, len(sample.images)) or 0
            box = in_pixels(one, completion.box_spaces, sample.sizes)
            if box is not None:
                images[index] = images.get(index) or load_image(sample.images[index], sample.source)
                crops.append(crop(images[index], box, self.max_side))
        return crops

    def _ask(self, name: str, picture: str) -> Future[float | None]:
        return self._judge.ask_about_images(self._prompt.fill({"name": name}), [picture], self._prompt.version)


def _mean(scores: list[float | None], count: int) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / count if len(known) == len(scores) else None


def name_of(text: str, boxes: tuple[TextBox, ...], index: int, max_words: int) -> str:
    """Return the name of box ``index``: its label, else the last ``max_words`` words after the previous box."""
    found = boxes[index]
    if found.label is not None:
        return found.label.strip()
    start = boxes[index - 1].end if index else 0
    return " ".join(text[start : found.start].split()[-max_words:])


def crop(image: Image.Image, box: Box, max_side: int) -> str:
    """Return the crop of a box, given in pixels of the image, as a PNG data URL; it is at least one pixel in size."""
    x1, y1 = (min(math.floor(value), size - 1) for value, size in zip(box[:2], image.size, strict=True))
    x2, y2 = (min(math.ceil(value), size) for value, size in zip(box[2:], image.size, strict=True))
    part = image.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
    part.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    part.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
