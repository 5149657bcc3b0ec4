"""Fixtures for data tests: files of valid records to modify, and an encoder that needs no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from grit_lightning.types import Prompt, Sample


def good_record(**changes: Any) -> dict[str, Any]:
    record = {
        "question": "How many cats are there?",
        "answer": 2,
        "image": "a.png",
        "width": 40,
        "height": 30,
        "bboxs": [[1.5, 2, 20, 28]],
        "dataset": "tallyqa",
        "split": "train",
    }
    return {**record, **changes}


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    return good_record


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes records or raw lines to a JSONL file beside ``images/a.png`` of 40 × 30 pixels."""

    def write_lines(*lines: Any, name: str = "cats.jsonl") -> Path:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30), "red").save(folder / "a.png")
        raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        path = tmp_path / name
        path.write_bytes(b"\n".join(raw) + b"\n" if raw else b"")
        return path

    return write_lines


class FakeEncoder:
    """Encodes one token per character of the question and one image token per started 10 px of width; records calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, sample: Sample, images: Sequence[Image.Image]) -> Prompt:
        self.calls.append(sample.id)
        length = len(sample.question) + sum(self.image_tokens(image.width) for image in images)
        ids = torch.arange(length)
        return Prompt(
            sample,
            sample.question,
            ids,
            ids[None],
            {"grid": torch.tensor([image.width for image in images])},
            sample.sizes,
        )

    def image_tokens(self, width: int) -> int:
        return -(-width // 10)

    def count_image_tokens(self, prompt: Prompt) -> int:
        return self.image_tokens(int(prompt.vision["grid"][0]))


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()
