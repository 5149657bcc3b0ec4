"""Processors of transformers where torchvision is not installed: the released class without its video processor."""

from __future__ import annotations

from typing import Any

import pytest
import transformers
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLProcessor,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3VLProcessor,
)
from transformers.utils import is_torchvision_available

PARTS: dict[str, tuple[type, type]] = {
    "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil),
    "qwen3_vl": (Qwen3VLProcessor, Qwen2VLImageProcessorPil),
    "internvl": (InternVLProcessor, GotOcr2ImageProcessorPil),
}


class ImageOnly:
    """Stands in for ``AutoProcessor``, which cannot be used without torchvision, because of the video processor."""

    @staticmethod
    def from_pretrained(name: str) -> Any:
        config = AutoConfig.from_pretrained(name)
        processor, images = PARTS[config.model_type]
        attributes = {"get_attributes": classmethod(lambda cls: ["image_processor", "tokenizer"])}
        made = type(processor.__name__, (processor,), attributes)
        tokenizer = AutoTokenizer.from_pretrained(name)
        more = {"image_seq_length": config.image_seq_length} if config.model_type == "internvl" else {}
        return made(images.from_pretrained(name), tokenizer, chat_template=tokenizer.chat_template, **more)


def without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``from transformers import AutoProcessor`` give a class that works, also where torchvision is missing."""
    if not is_torchvision_available():
        monkeypatch.setattr(transformers, "AutoProcessor", ImageOnly)
