"""Tests of ``task=validate``: the estimates that it prints for a data set and a model."""

from __future__ import annotations

import json
import re
from pathlib import Path

VERDICT = r"^estimated peak on each device: \d+\.\d GB; .+ has \d+\.\d GB: it fits$"
SECONDS = r"^a step with completions of 112 tokens takes more than (\S+) s \((.+)\), at"


def test_memory_by_part_and_the_least_seconds_of_a_step_are_printed(cli, tmp_path: Path) -> None:
    done = cli("task=validate", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    parts = dict(re.findall(r"^(\w[\w ]+\w) +(\d+\.\d\d) GB$", done.stdout, re.MULTILINE))
    assert {"weights", "reference", "optimizer", "gradients", "cache of keys and values", "activations"} <= set(parts)
    assert re.search(VERDICT, done.stdout, re.MULTILINE)
    sentence = re.search(SECONDS, done.stdout, re.MULTILINE)
    assert sentence is not None
    phases = dict(phase.split() for phase in sentence[2].split(", "))
    assert list(phases) == ["rollout", "reference", "update"]


def test_an_engine_counts_in_the_memory(cli, tmp_path: Path) -> None:
    done = cli("task=validate", "threads=1", "rollout=vllm", "rollout.engine.kv_cache_gib=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^engine +3\.\d\d GB$", done.stdout, re.MULTILINE)
    assert "cache of keys and values" not in done.stdout


def test_a_model_that_does_not_fit_is_named(cli, tmp_path: Path) -> None:
    huge = ("rollout.num_generations=1000000", "rollout.max_sequences=100000000")
    done = cli("task=validate", "threads=1", *huge, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "it does not fit: see Out of memory in docs/troubleshooting.md" in done.stdout


def test_control_characters_of_a_data_file_are_shown_escaped(cli, shapes: Path, tmp_path: Path) -> None:
    file = shapes / "hos\x1b[31mtile.jsonl"
    record = {"question": "Q", "answer": "1", "image": "\x1b]0;title\x07\u202e.png", "width": 9, "height": 9}
    file.write_text(json.dumps(record) + "\n" + json.dumps(record | {"answer": "\\boxed{\x9b2J}"}) + "\n")
    train = f"data.train=[{{file: '{file.name}', images: images}}]"
    done = cli("task=validate", "threads=1", "data=grit", f"data.root={shapes}", train, "data.val=[]", cwd=tmp_path)
    assert done.returncode == 1
    assert r"hos\x1b[31mtile.jsonl:1: image " in done.stdout
    assert r"\x1b]0;title\x07\u202e.png does not exist" in done.stdout
    assert r"hos\x1b[31mtile.jsonl:2: field 'answer' is" in done.stdout
    assert all(character.isprintable() for character in (done.stdout + done.stderr).replace("\n", ""))
