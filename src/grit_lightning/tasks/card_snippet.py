"""The Python snippet of a model card: ask the exported model about a picture with transformers, as in training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import BaseImageProcessor

SNIPPET = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

name = {name!r}  # {comment}
processor = AutoProcessor.from_pretrained(name)
model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto")
{settings}
image = Image.open("picture.png").convert("RGB")
question = "How many red circles are there?"
prompt = {prompt!r}.replace("{{question}}", question)
turn = {{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": prompt}}]}}
text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False) + {prefill!r}
inputs = processor(images=[image], text=[text], return_tensors="pt")
output = model.generate(
    **inputs, max_new_tokens={limit}, do_sample=False, stop_strings=[{stop!r}], tokenizer=processor.tokenizer
)
print(processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))"""


def card_snippet(values: Mapping[str, Any], image_processor: BaseImageProcessor, repository: str | None) -> str:
    """Return the snippet, which needs transformers, torchvision and a ``picture.png``.

    Args:
        values: the run's resolved config.
        image_processor: the run's image processor, with the limits that the run sets; those of the exported files are
            the checkpoint's own.
        repository: hub id that the folder is uploaded to; ``None`` to name the folder that the card lies in.
    """
    return SNIPPET.format(
        name=repository or ".",
        comment="or a folder with its files" if repository else "the folder of this file",
        settings="".join(f"processor.image_processor.{key} = {value!r}\n" for key, value in _limits(image_processor)),
        prompt=values["prompt"]["template"],
        prefill=values["prompt"]["prefill"],
        limit=values["rollout"]["max_new_tokens"],
        stop=values["rollout"]["stop"],
    )


def _limits(image_processor: BaseImageProcessor) -> list[tuple[str, Any]]:
    """Return the settings that a family changes: tiles, of families that cut images into tiles, or the size."""
    if hasattr(image_processor, "max_patches"):
        return [(key, getattr(image_processor, key)) for key in ("crop_to_patches", "min_patches", "max_patches")]
    return [("size", dict(image_processor.size))]
