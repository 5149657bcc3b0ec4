"""TRL's side of the comparison: its GRPOTrainer with our weights, images, prompts, lengths, optimizer and precision."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import torch
from datasets import Dataset
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from grit_lightning.model.backbones.random_weights import random_checkpoint
from grit_lightning.rewards.text_statistics import digit_share
from steps.gate import Gate
from steps.sizes import Size, checkpoint, image, question


class Processor(Qwen2_5_VLProcessor):
    """The Qwen2.5-VL processor without a video processor, which would need torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        """Accept any argument, as the missing video processor fails the original check."""
        return type(argument)


class MeasuredTrainer(GRPOTrainer):
    """Measures the seconds of each phase.

    Attributes:
        seconds: seconds by phase since the last clear.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seconds: dict[str, float] = defaultdict(float)
        backward = self.accelerator.backward
        self.accelerator.backward = lambda *a, **k: self.timed("backward", backward, *a, **k)

    def timed(self, phase: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the result of ``call``, and add its duration to the seconds of ``phase``."""
        start = time.perf_counter()
        result = call(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[phase] += time.perf_counter() - start
        return result

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        return self.timed("rollout", super()._generate, *args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        phase = "forward" if torch.is_grad_enabled() else "reference"
        return self.timed(phase, super()._get_per_token_logps_and_entropies, *args, **kwargs)


class TakesTurns(TrainerCallback):
    """Starts each step on request and reports its measurements."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.trainer: MeasuredTrainer | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the request to start."""
        self.gate.wait()
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Report the step; forward and backward pass together are the phase ``update``."""
        assert self.trainer is not None
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.start
        phases = dict(self.trainer.seconds)
        self.trainer.seconds.clear()
        phases["update"] = phases.pop("forward") + phases.pop("backward")
        phases["other"] = seconds - sum(phases.values())
        self.gate.report(seconds, phases, torch.cuda.max_memory_allocated() / 2**30 if cuda else None)


def rewards_of(size: Size) -> Callable[..., list[float]]:
    """Return our digit reward as a TRL reward function, which also checks that completions have their full length."""

    def digits(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        assert {len(ids) for ids in completion_ids} == {size.new_tokens}
        return [_share(completion[0]["content"]) for completion in completions]

    return digits


def _share(text: str) -> float:
    class Written:
        pass

    written = Written()
    written.text = text  # type: ignore[attr-defined]
    return digit_share(None, written)  # type: ignore[arg-type]


def trainer_of(size: Size, gate: Gate, output: str) -> MeasuredTrainer:
    """Return TRL's trainer without logging, checkpoints and progress bar, which would add to the time of a step."""
    folder = checkpoint(size)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    image_processor.size = {"shortest_edge": 3136, "longest_edge": size.pixels**2}
    processor = Processor(image_processor, tokenizer, None, chat_template=tokenizer.chat_template)
    from transformers import AutoConfig

    weights = random_checkpoint(AutoConfig.from_pretrained(folder), 0, tokenizer, image_processor)
    model = AutoModelForImageTextToText.from_pretrained(weights, dtype=size.dtype, attn_implementation="sdpa")
    rows = [{"prompt": [{"role": "user", "content": question(size, i)}], "image": image(size, i)} for i in range(64)]
    arguments = GRPOConfig(
        output_dir=output, max_steps=10_000, use_cpu=not torch.cuda.is_available(), report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True, shuffle_dataset=False, seed=0,
        per_device_train_batch_size=size.peer_rows,
        gradient_accumulation_steps=size.prompts * size.generations // size.peer_rows,
        num_generations=size.generations, max_completion_length=size.new_tokens, temperature=1.0, top_k=0,
        generation_kwargs={"min_new_tokens": size.new_tokens}, beta=0.01, loss_type="grpo", num_iterations=1,
        learning_rate=1e-6, lr_scheduler_type="constant", adam_beta2=0.99, max_grad_norm=1.0,
        bf16=size.dtype == "bfloat16", gradient_checkpointing=size.gradient_checkpointing,
        model_init_kwargs={"dtype": size.dtype, "attn_implementation": "sdpa"},
    )  # fmt: skip
    turns = TakesTurns(gate)
    trainer = MeasuredTrainer(
        model=model, reward_funcs=rewards_of(size), args=arguments, train_dataset=Dataset.from_list(rows),
        processing_class=processor, callbacks=[turns],
    )  # fmt: skip
    turns.trainer = trainer
    return trainer


def main() -> None:
    """Do steps on request until the measuring process closes the connection."""
    gate = Gate()
    gate.imported()
    size = Size.from_json(sys.argv[1])
    with tempfile.TemporaryDirectory() as output:
        trainer_of(size, gate, output).train()


if __name__ == "__main__":
    main()
