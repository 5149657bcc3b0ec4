"""The page about a long run: seconds and memory to write it, its size, and seconds until a browser shows it.

    python benchmarks/report_page.py                    # 200 steps of 128 completions about 500 images
    python benchmarks/report_page.py --words 1000       # long completions

It writes the rollouts and the held-out answers of a made-up run, and the page about it as task=report does. The time
in a browser needs the extra ``browser`` and a Chromium on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from steps.measure import command, machine, markdown, write

SIDE = 640
GROUP = 8


def record(choose: random.Random, image: Path, sample: int, words: int, **fields: Any) -> dict[str, Any]:
    """Return a stored completion with two boxes."""
    boxes = []
    for label in ("cat", "dog"):
        x, y = choose.randrange(500), choose.randrange(500)
        box = [x, y, x + choose.randrange(20, 140), y + choose.randrange(20, 140)]
        boxes.append({"label": label, "form": "json", "image": 1, "model": box, "pixels": box, "valid": True})
    said = " ".join(
        choose.choices(
            ["the", "red", "cat", "is", "left", "of", "two", "small", "dogs", "and", "a", "blue", "chair"], k=words
        )
    )
    written = json.dumps([{"bbox_2d": box["model"], "label": box["label"]} for box in boxes])
    text = f"<think> {said} {written} </think>"
    right = float(choose.random() < 0.6)
    return {
        "sample_id": f"made/{sample}", "dataset": "made", "split": "train", "source": f"made.jsonl:{sample}",
        "question": "How many cats are there?", "answer": "2", "image": str(image), "image_size": [SIDE, SIDE],
        "more_images": [], "reference_boxes": [boxes[0]["pixels"]], "reference_images": [1],
        "reference_labels": [None], "options": [], "extra": {}, "text": f"{text} <answer> 2 </answer>",
        "finish": "stop", "num_tokens": words, "token_ids": [], "parsed_answer": "2", "boxes": boxes,
        "box_space": [SIDE, SIDE], "more_box_spaces": [], "prompt_version": "grounded", **fields,
        "right": right,
    }  # fmt: skip


def make_run(folder: Path, steps: int, completions: int, images: int, words: int) -> None:
    """Write the folder of a run with rollouts and held-out answers."""
    choose, drawn = random.Random(0), np.random.default_rng(0)
    files = []
    for index in range(images):
        small = Image.fromarray(drawn.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        files.append(folder / "images" / f"{index}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        small.resize((SIDE, SIDE)).save(files[-1])
    manifest = {"overrides": [], "started": "2026-01-01", "packages": {}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "rollouts").mkdir()
    (folder / "eval").mkdir()
    for step in range(1, steps + 1):
        with (folder / "rollouts" / f"step_{step:06d}.jsonl").open("w") as file:
            for index in range(completions):
                slot = index // GROUP
                sample = (step * (completions // GROUP) + slot) % images
                one = record(
                    choose, files[sample], sample, words, step=step, slot=slot, completion_index=index % GROUP,
                    reward_errors={}, advantage=choose.gauss(0, 1),
                )  # fmt: skip
                right = one.pop("right")
                file.write(json.dumps(one | {"rewards": {"answer_match": right}, "reward": right}) + "\n")
    for when in ("before", "after"):
        with (folder / "eval" / f"{when}.jsonl").open("w") as file:
            for sample in range(2000):
                one = record(choose, files[sample % images], sample, words, completion_index=0, judge="exact match")
                right = one.pop("right")
                file.write(json.dumps(one | {"scores": {"judge": right, "exact_match": right}}) + "\n")


def shown_after(page: Path) -> float | None:
    """Return the seconds until a browser has loaded and laid out the page; ``None`` without one."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.evaluate("document.body.offsetHeight")
        seconds = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--completions", type=int, default=128)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        make_run(folder, given.steps, given.completions, given.images, given.words)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "grit_lightning", "task=report", f"run={folder}"], check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        page = folder / "report.html"
        megabytes, shown = page.stat().st_size / 1e6, shown_after(page)
    rows = [
        ["", ""], ["---", "--:"], ["written, s", f"{seconds:.1f}"], ["peak memory, MiB", f"{peak:.0f}"],
        ["size, MB", f"{megabytes:.1f}"], ["shown by a browser, s", "-" if shown is None else f"{shown:.2f}"],
    ]  # fmt: skip
    results = {"seconds": seconds, "peak_mib": peak, "megabytes": megabytes, "shown": shown}
    described = {"command": command(), "machine": machine(), **results}
    write(given.out, "report_page", f"`{command()}`\n\n{markdown(rows)}", described)


if __name__ == "__main__":
    main()
