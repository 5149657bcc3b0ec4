"""vLLM as an engine: a copy of the policy's weights in this process, replaced in place before each rollout."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import BaseImageProcessor, PreTrainedModel

from grit_lightning.errors import ConfigError, EngineError
from grit_lightning.model.backbones.protocol import Backbone
from grit_lightning.rollout.choice import Draw, Greedy
from grit_lightning.rollout.stopping import stop_automaton
from grit_lightning.rollout.vllm.outputs import completion_of, require_same_prompt
from grit_lightning.rollout.vllm.start import engine_errors, prepare, quiet, require_installed, several_processes, start
from grit_lightning.rollout.vllm.weight_sync import take_weights
from grit_lightning.types import Completion, Prompt

if TYPE_CHECKING:
    from vllm import LLM

log = logging.getLogger(__name__)

_DRIFT = {torch.float32: 1e-3, torch.bfloat16: 0.05}
"""Default of ``max_drift`` by the dtype that the engine computes in."""

_TILES = ("crop_to_patches", "min_patches", "max_patches")
"""Attributes of an image processor that cuts images into tiles, as InternVL's does."""


class VLLM:
    """vLLM in the process of the trainer. Default values live in ``conf/rollout/vllm.yaml``.

    Each process has an engine of its own, which holds the whole model.

    Args:
        gpu_memory_utilization: share of the GPU's memory for the engine's weights and key-value cache.
        kv_cache_gib: size of the key-value cache in GiB, in place of what that share leaves; ``None`` for that, and
            for 1 GiB on a CPU.
        max_model_len: largest number of tokens of a prompt and its completion together.
        max_num_seqs: largest number of completions that are decoded at once.
        enforce_eager: run the model without compiled code and CUDA graphs: a quicker start and slower decoding.
        sleep: free the engine's GPU memory between rollouts.
        noise: ``counter`` for the built-in engine's sampling noise, a pure function of (seed, step, slot, sample);
            ``seeds`` for vLLM's own sampler with a seed for each completion, where vLLM refuses logits processors.
        max_drift: largest mean |log π − log π_engine| of a training step; ``None`` for 1e-3 in float32 and 0.05 in
            bfloat16.
        options: further arguments of ``vllm.LLM``.

    Raises:
        ConfigError: a value is out of range.
    """

    name = "vllm"
    runs_policy = False

    def __init__(
        self,
        *,
        gpu_memory_utilization: float,
        kv_cache_gib: float | None,
        max_model_len: int,
        max_num_seqs: int,
        enforce_eager: bool,
        sleep: bool,
        noise: Literal["counter", "seeds"],
        max_drift: float | None,
        options: Mapping[str, Any],
    ) -> None:
        if not 0 < gpu_memory_utilization <= 1:
            raise ConfigError(
                f"rollout.engine.gpu_memory_utilization is {gpu_memory_utilization}, expected above 0 and at most 1"
            )
        for key, value in (("max_model_len", max_model_len), ("max_num_seqs", max_num_seqs)):
            if value < 1:
                raise ConfigError(f"rollout.engine.{key} is {value}, expected a whole number of at least 1")
        for key, bound in (("kv_cache_gib", kv_cache_gib), ("max_drift", max_drift)):
            if bound is not None and not bound > 0:
                raise ConfigError(f"rollout.engine.{key} is {bound}, expected a number above 0, or null")
        self.gpu_memory_utilization = gpu_memory_utilization
        self.kv_cache_gib = kv_cache_gib
        self.max_model_len = max_model_len
        self.max_num_seqs = max_num_seqs
        self.enforce_eager = enforce_eager
        self.sleep = sleep
        self.noise = noise
        self.max_drift = math.inf if max_drift is None else max_drift  # until the engine's dtype is known
        self._given_drift = max_drift
        self.options = dict(options)
        self._llm: LLM | None = None

    def require_usable(self) -> None:
        """Check that vLLM is installed, in a version that fits.

        Raises:
            EngineError: it is not.
        """
        require_installed()

    @contextmanager
    def serving(self, model: PreTrainedModel, backbone: Backbone) -> Iterator[None]:
        """Decode with the weights that the model has now while the block runs; then free the GPU's memory.

        vLLM is started at the first call. Weights go to it one at a time, in memory.

        Raises:
            EngineError: vLLM does not start, or does not take the weights.
            ConfigError: the model's weights are quantized.
        """
        if self._llm is None:
            self._start(model, backbone)
        llm = self._running
        with engine_errors("vLLM does not take the policy's weights"), quiet():
            take_weights(llm, model)
        try:
            yield
        finally:
            if self.sleep and model.device.type == "cuda":
                llm.sleep(level=2)  # drops the weights, which the next rollout brings anew

    def complete(
        self,
        model: PreTrainedModel,
        backbone: Backbone,
        prompts: Sequence[Prompt],
        keys: Sequence[int],
        *,
        max_new_tokens: int,
        stop: str,
        choose: Draw | Greedy,
        tick: Callable[[int], None] = lambda position: None,
    ) -> list[Completion]:
        """Decode as many completions of each prompt as there are keys for it; see :func:`~..engine.complete`.

        Raises:
            EngineError: vLLM has failed, or has read a prompt differently.
            ConfigError: a prompt and its completion are longer than ``max_model_len``.
        """
        from grit_lightning.rollout.vllm.requests import request, sampling_parameters
        from grit_lightning.rollout.vllm.token_chooser import Calls, TokenChooser

        longest = max(prompt.num_tokens for prompt in prompts)
        if longest + max_new_tokens > self.max_model_len:
            raise ConfigError(
                f"rollout.engine.max_model_len is {self.max_model_len}, expected at least {longest + max_new_tokens}: "
                f"a prompt has {longest} tokens, and its completion up to {max_new_tokens}"
            )
        generations = len(keys) // len(prompts)
        owners = [index for index in range(len(prompts)) for _ in range(generations)]
        # The first completion of each prompt before the second of any: the others then find its keys and values.
        order = sorted(range(len(keys)), key=lambda place: place % generations)
        calls = TokenChooser.calls = Calls(choose, list(keys), tick)
        requests = [request(backbone, prompt) for prompt in prompts]
        parameters = [
            sampling_parameters(
                backbone, choose, self.noise, place=place, key=keys[place], max_new_tokens=max_new_tokens, stop=stop
            )
            for place in order
        ]
        with engine_errors("vLLM has failed"), quiet():
            outputs = self._running.generate([requests[owners[place]] for place in order], parameters, use_tqdm=False)
        by_request = dict(zip(order, outputs, strict=True))
        for index in range(0, len(keys), generations):
            require_same_prompt(prompts[owners[index]], by_request[index].prompt_token_ids, backbone)
        found = [by_request[index].outputs[0] for index in range(len(keys))]
        ends = stop_automaton(backbone, stop, model.config.get_text_config().vocab_size)
        return [
            completion_of(
                output,
                end,
                prompts[owner],
                backbone,
                chosen=chosen if self.noise == "counter" else None,
                sampled=isinstance(choose, Draw),
            )
            for output, end, owner, chosen in zip(
                found, ends.find([one.token_ids for one in found], model.device), owners, calls.chosen, strict=True
            )
        ]

    @property
    def _running(self) -> LLM:
        if self._llm is None:
            raise RuntimeError("serving has not been entered")
        return self._llm

    def _start(self, model: PreTrainedModel, backbone: Backbone) -> None:
        if any(not value.is_floating_point() for value in model.parameters()):
            raise ConfigError(
                "rollout=vllm cannot take quantized weights: choose peft.quantize=null, or rollout=sampled"
            )
        prepare(model.device)
        on_cuda = model.device.type == "cuda"
        autocast = torch.is_autocast_enabled(model.device.type)
        dtype = torch.get_autocast_dtype(model.device.type) if autocast else model.dtype
        self.max_drift = _DRIFT.get(dtype, 0.05) if self._given_drift is None else self._given_drift
        cache = self.kv_cache_gib if on_cuda else self.kv_cache_gib or 1.0
        arguments = {
            # Its weights are read too, though the policy's follow: vLLM's dummy ones would spoil buffers that stay.
            "model": backbone.weights_folder(),
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_num_seqs,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "kv_cache_memory_bytes": None if cache is None else int(cache * 2**30),
            "enforce_eager": self.enforce_eager or not on_cuda,
            "enable_sleep_mode": self.sleep and on_cuda,
            "limit_mm_per_prompt": {"video": 0},
            "mm_processor_kwargs": _image_options(backbone.image_processor),
            "generation_config": "vllm",  # the checkpoint's would set a repetition penalty
            "logprobs_mode": "processed_logprobs",
            "async_scheduling": False,  # the chooser counts the tokens so far
            "disable_log_stats": True,
            "seed": 0,
            # Each process has an engine of its own, beside the process group of the training.
            "distributed_executor_backend": "external_launcher" if several_processes() else None,
            **self.options,
        }
        if self.noise == "counter":
            try:
                self._llm = start(arguments | {"logits_processors": [_chooser()]})
                return
            except EngineError as error:
                if "logits processors are not supported" not in str(error).lower():
                    raise
                log.warning("vLLM refuses our sampling noise (%s): it samples with a seed for each completion", error)
                self.noise = "seeds"
        self._llm = start(arguments)


def _image_options(processor: BaseImageProcessor) -> dict[str, Any]:
    """Return the arguments with which vLLM's image processor bounds the size of an image as the policy's does."""
    tiles = {name: getattr(processor, name) for name in _TILES if hasattr(processor, name)}
    return tiles or {"size": {edge: processor.size[edge] for edge in ("shortest_edge", "longest_edge")}}


def _chooser() -> type:
    """Import the logits processor, and with it vLLM, only when it is needed."""
    with engine_errors("vLLM cannot be imported"):
        from grit_lightning.rollout.vllm.token_chooser import TokenChooser
    return TokenChooser
