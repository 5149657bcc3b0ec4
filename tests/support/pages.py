"""Runs with stored rollouts to make pages of, and a reader of the pages."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from grit_lightning.runs.run_folder import RunFolder

NASTY = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</textarea></style></svg>", "{{ 7 * 7 }}",
    "\x1b[2J\u202e", "' onmouseover='alert(1)",
)  # fmt: skip


class Tags(HTMLParser):
    """Collects the tags of a page, its attributes and its visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def completion(text: str, index: int = 0, **changes: Any) -> dict[str, Any]:
    box = {"label": "cat", "form": "json", "image": 1, "model": [1, 2, 30, 40], "pixels": [1, 2, 30, 40], "valid": True}
    return {
        "step": 1, "slot": 0, "sample_id": "mine/1", "dataset": "tallyqa", "split": "train", "source": "mine.jsonl:1",
        "question": "How many cats?", "answer": "1", "image": "gone.png", "image_size": [60, 50], "more_images": [],
        "reference_boxes": [[0, 0, 20, 20]], "completion_index": index, "text": text, "finish": "stop",
        "num_tokens": 7, "token_ids": [1], "parsed_answer": "1", "boxes": [box], "rewards": {"answer_match": 1.0},
        "reward": 1.0 - index, "reward_errors": {}, "advantage": 0.5 - index, **changes,
    }  # fmt: skip


def run_with(tmp_path: Path, steps: dict[int, list[dict[str, Any]]]) -> RunFolder:
    run = RunFolder(tmp_path / "run")
    run.rollouts.mkdir(parents=True)
    manifest = {"overrides": ["seed=1"], "started": "2026-01-01", "packages": {"torch": "2.13"}}
    run.manifest_file.write_text(json.dumps(manifest))
    for step, records in steps.items():
        (run.rollouts / f"step_{step:06d}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return run
