"""Tests with vLLM itself, by make test-vllm: whole commands beside the built-in engine, and what goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm")

SHORT = (
    "evaluation.during_training.before_and_after=0", "evaluation.during_training.every_n_steps=null",
    "task.report=false",
)  # fmt: skip


def command(*arguments: str, code: str = "") -> list[str]:
    """Return the command line of the application, or of one in which ``code`` has run before."""
    if not code:  # which Lightning can start again for each further process
        return [sys.executable, "-m", "grit_lightning", *arguments]
    return [sys.executable, "-c", f"{code}\nfrom grit_lightning.__main__ import main; main()", *arguments]


def run(*arguments: str, cwd: Path, code: str = "", fails: bool = False) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*arguments, code=code), cwd=cwd, capture_output=True, text=True, timeout=600)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done


def rollouts(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / "rollouts").glob("*.jsonl"))}


def answers(folder: Path) -> list[list[int]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [json.loads(line)["token_ids"] for line in lines]


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twenty steps with the built-in engine."""
    folder = tmp_path_factory.mktemp("runs")
    run("trainer.max_steps=20", *SHORT, "out=builtin", cwd=folder)
    return folder


@pytest.mark.parametrize("prompt", ["grounded", "grounded_prefilled"])
def test_greedy_answers_to_all_held_out_questions_are_equal(tmp_path, prompt: str) -> None:
    for name, more in (("plain", ()), ("other", ("evaluation.engine=vllm",))):
        run("task=evaluate", f"prompt={prompt}", *more, f"out={name}", cwd=tmp_path)
    pairs = list(zip(answers(tmp_path / "plain"), answers(tmp_path / "other"), strict=True))
    equal = sum(one == other for one, other in pairs)
    print(f"{prompt}: {equal} of {len(pairs)} equal, {sum(len(one) for one, _ in pairs)} tokens")
    assert len(pairs) == 512
    assert equal >= 500


def test_twenty_steps_draw_the_same_completions_and_go_on_after_a_kill(twenty, tmp_path) -> None:
    folder = tmp_path / "other"
    arguments = ("trainer.max_steps=20", "callbacks.checkpoint.every_n_steps=5", "rollout=vllm", *SHORT)
    process = subprocess.Popen(command(*arguments, f"out={folder}"), cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (folder / "rollouts" / "step_000008.jsonl").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(f"resume={folder}", cwd=tmp_path)
    assert rollouts(folder) == rollouts(twenty / "builtin")


@pytest.mark.parametrize(
    "more",
    [
        ("peft=lora",),
        ("strategy=ddp", "trainer.devices=2", "threads=1"),
        ("strategy=fsdp", "trainer.devices=2", "threads=1"),
    ],
    ids=["lora", "ddp", "fsdp"],
)
def test_adapters_and_shards_reach_the_engine(tmp_path, more: tuple[str, ...]) -> None:
    arguments = ("trainer.max_steps=3", "trainer.accelerator=cpu", *SHORT, *more)
    run(*arguments, "out=plain", cwd=tmp_path)
    run(*arguments, "rollout=vllm", "out=other", cwd=tmp_path)
    assert rollouts(tmp_path / "plain") == rollouts(tmp_path / "other")


def test_vllms_own_sampler_is_reproducible_and_its_probabilities_are_the_policys(tmp_path) -> None:
    arguments = ("trainer.max_steps=3", "rollout=vllm", "rollout.engine.noise=seeds", *SHORT)
    for name in ("one", "two"):
        run(*arguments, f"out={name}", cwd=tmp_path)  # a drift above 1e-3 would end the run
    assert rollouts(tmp_path / "one") == rollouts(tmp_path / "two")


@pytest.mark.parametrize("stale", ["everything", "the tied head"])
def test_a_withheld_update_is_caught_at_the_next_step(tmp_path, stale: str) -> None:
    code = {
        "everything": "import grit_lightning.rollout.vllm.engine as e; take, done = e.take_weights, []\n"
        "def once(*a): done or take(*a); done.append(1)\ne.take_weights = once",
        "the tied head": "import grit_lightning.rollout.vllm.weight_sync as w; w._pack_embeddings = lambda model: None",
    }[stale]
    done = run("trainer.max_steps=20", "rollout=vllm", *SHORT, "out=run", cwd=tmp_path, code=code, fails=True)
    last = done.stderr.strip().splitlines()[-1]
    assert "the engine's log-probabilities differ from the policy's by" in done.stderr, last
    if stale == "everything":
        assert "error: step 2:" in done.stderr


def broken(text: str) -> str:
    return f"import vllm\ndef fail(*a, **k): raise RuntimeError({text!r})\nvllm.LLM.generate = fail"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("rollout.engine.max_model_len=40",), "", "rollout.engine.max_model_len is 40, expected at least"),
        (("rollout.engine.kv_cache_gib=100000",), "", "vLLM does not start: "),
        (("+rollout.engine.options.nonsense=1",), "", "vLLM does not start: "),
        ((), broken("EngineCore died\nand why"), "error: vLLM has failed: EngineCore died"),
    ],
    ids=["length", "memory", "option", "death"],
)
def test_what_goes_wrong_is_one_line(tmp_path, more: tuple[str, ...], code: str, message: str) -> None:
    done = run("rollout=vllm", *SHORT, *more, "out=run", cwd=tmp_path, code=code, fails=True)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


KEEP_ITS_OWN = "import grit_lightning.rollout.vllm.engine as e; e.take_weights = lambda *_: None"
"""vLLM answers with the weights that it has read from the folder itself."""


def test_an_export_with_merged_adapters_is_served_as_it_lies_on_the_disk(tmp_path) -> None:
    run("trainer.max_steps=2", "peft=lora", "optimizer.lr=0.01", *SHORT, "out=run", cwd=tmp_path)
    run("task=export", "run=run", "out=export", cwd=tmp_path)
    model = ("model.checkpoint=export", "model.freeze=[]")
    run("task=evaluate", "task.max_samples=64", *model, "out=plain", cwd=tmp_path)
    other = ("evaluation.engine=vllm", "out=other")
    run("task=evaluate", "task.max_samples=64", *model, *other, cwd=tmp_path, code=KEEP_ITS_OWN)
    pairs = list(zip(answers(tmp_path / "plain"), answers(tmp_path / "other"), strict=True))
    assert sum(one == other for one, other in pairs) >= 62


def test_a_head_size_that_vllm_has_no_kernel_for_is_one_line(tmp_path) -> None:
    from support.released import internvl

    model = ("model=pretrained", f"model.checkpoint={internvl(tmp_path / 'checkpoint')}", "model.dtype=float32")
    arguments = ("task=evaluate", "task.max_samples=4", *model, "evaluation.engine=vllm", "out=out")
    done = run(*arguments, cwd=tmp_path, fails=True)
    assert "error: vLLM has failed: Unsupported CPU attention configuration: head_dim=16" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_other_families_are_answered_alike(tmp_path, family: str) -> None:
    from support.released import MAKERS

    maker: Callable[[Path], Path] = MAKERS[family]
    checkpoint = maker(tmp_path / "checkpoint")
    if family == "internvl":  # heads of 32, the least that vLLM computes on a CPU; the weights have the same shapes
        config = json.loads((checkpoint / "config.json").read_text())
        config["text_config"] |= {"num_attention_heads": 2, "num_key_value_heads": 1}
        (checkpoint / "config.json").write_text(json.dumps(config))
    model = ("model=pretrained", f"model.checkpoint={checkpoint}", "model.dtype=float32")
    run("task=evaluate", "task.max_samples=24", *model, "out=plain", cwd=tmp_path)
    other = ("evaluation.engine=vllm", "out=other")
    run("task=evaluate", "task.max_samples=24", *model, *other, cwd=tmp_path, code=KEEP_ITS_OWN)
    pairs = zip(answers(tmp_path / "plain"), answers(tmp_path / "other"), strict=True)
    assert sum(one == other for one, other in pairs) >= 22
