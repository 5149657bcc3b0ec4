"""Whether the text names what its boxes show: a judge that can see looks at each box alone."""

from __future__ import annotations

import base64
import io
import math
from concurrent.futures import Future

from PIL import Image

from grit_lightning.data.images import load_image
from grit_lightning.errors import ConfigError
from grit_lightning.grounding.boxes import TextBox, rescale, valid_boxes
from grit_lightning.grounding.sections import parse
from grit_lightning.judge.llm import LLMJudge
from grit_lightning.judge.prompt import PromptTemplate
from grit_lightning.judge.protocol import Judge, gather, then
from grit_lightning.types import Box, Completion, Sample


class Consistency:
    """Whether the crop shows what the text calls it: the mean score, 0 to 1, over a completion's boxes.

    What a box is called is its label, or the words that lead to it. A box that is inverted, empty, outside of the
    image or repeated scores 0 without being asked about, and so does one that is called nothing. A completion without
    boxes scores 0.

    What it invites a policy to: few, safe and large boxes with vague names ("object", "scene"), since nothing asks
    whether the boxes matter to the question; a box around the whole image fits any name that is in it. Use it beside a
    reward for the answer. The crop and the name are untrusted: text written in the picture may speak to the judge.

    Args:
        judge: a judge over HTTP whose model reads images.
        prompt: a file with the text, which has ``{name}``.
        max_boxes: the first so many boxes are asked about; further ones score 0, so that many boxes cost no fortune.
        max_words: of the words that lead to a box without a label, the last so many count.
        max_side: pixels; larger crops are made smaller.

    Raises:
        ConfigError: a value that cannot be used.
    """

    def __init__(self, *, judge: Judge, prompt: str, max_boxes: int, max_words: int, max_side: int) -> None:
        if not isinstance(judge, LLMJudge):
            raise ConfigError("reward consistency needs a judge that sees: expected judge=openai, azure or local")
        for key, value in {"max_boxes": max_boxes, "max_words": max_words, "max_side": max_side}.items():
            if value < 1:
                raise ConfigError(f"reward consistency: {key} is {value}, expected at least 1")
        self._judge = judge
        self._prompt = PromptTemplate.read(prompt, ("name",), "reward consistency: prompt")
        self.max_boxes = max_boxes
        self.max_words = max_words
        self.max_side = max_side

    def __call__(self, sample: Sample, completion: Completion) -> float | Future[float | None]:
        """Ask about each box now; the mean comes later, or ``None`` where one could not be judged."""
        boxes = parse(completion.text).boxes
        flags = valid_boxes([found.box for found in boxes], completion.box_space)
        named = [(name_of(completion.text, boxes, index, self.max_words), found) for index, found in enumerate(boxes)]
        shown = [(name, found.box) for (name, found), valid in zip(named, flags, strict=True) if valid and name]
        if not shown:
            return 0.0
        image = load_image(sample)
        asked = [
            self._ask(name, crop(image, rescale(box, source=completion.box_space, target=sample.size), self.max_side))
            for name, box in shown[: self.max_boxes]
        ]
        return then(gather(asked), lambda scores: _mean(scores, len(boxes)))

    def _ask(self, name: str, picture: str) -> Future[float | None]:
        return self._judge.ask_about_images(self._prompt.fill({"name": name}), [picture], self._prompt.version)


def _mean(scores: list[float | None], count: int) -> float | None:
    known = [score for score in scores if score is not None]
    return math.fsum(known) / count if len(known) == len(scores) else None


def name_of(text: str, boxes: tuple[TextBox, ...], index: int, max_words: int) -> str:
    """What the text calls its box number ``index``: its label, or the last words between the box before and it."""
    found = boxes[index]
    if found.label is not None:
        return found.label.strip()
    start = boxes[index - 1].end if index else 0
    return " ".join(text[start : found.start].split()[-max_words:])


def crop(image: Image.Image, box: Box, max_side: int) -> str:
    """The part of the image within a box in its pixels, as a PNG in a data URL; at least one pixel."""
    x1, y1 = (min(math.floor(value), size - 1) for value, size in zip(box[:2], image.size, strict=True))
    x2, y2 = (min(math.ceil(value), size) for value, size in zip(box[2:], image.size, strict=True))
    part = image.crop((x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)))
    part.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    part.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
