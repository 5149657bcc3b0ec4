"""Low-rank adapters (LoRA, arXiv 2106.09685) with PEFT: add them, disable them for the reference, merge them.

PEFT puts the adapters inside the linear layers, so the model keeps its class and the names of its other parameters.
Only the adapters are trained and saved.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.utils import is_bitsandbytes_available

from grit_lightning.errors import CheckpointError, ConfigError

TRAINED, REFERENCE = "default", "reference"
"""PEFT's names of the trained adapters, and of the frozen copy of adapters that were loaded from a folder.

Fresh adapters need no copy: they change nothing at the start, so the model without adapters is the reference.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRA:
    """Settings of the adapters: their layers and their size. Values live in ``conf/peft``.

    Adapters have no dropout. Rollouts are sampled without dropout, so log-probabilities computed with it would belong
    to a different policy.

    Attributes:
        rank: rank of the update of each layer's weight.
        alpha: scale of the update, which is multiplied by alpha / rank.
        parts: parts of the model whose linear layers all get adapters: ``language``, ``vision``, ``projector``.
        checkpoint: folder of adapters in PEFT's layout to continue from; ``None`` for fresh adapters, which change
            nothing at the start.
        seed: seed of the initial weights of fresh adapters.
        quantize: ``nf4`` to hold the language model's frozen weights in 4 bits (QLoRA, arXiv 2305.14314), which needs
            bitsandbytes; ``None`` to keep their dtype.

    Raises:
        ConfigError: ``rank`` is below 1, or ``quantize`` is set and bitsandbytes is not installed.
    """

    rank: int
    alpha: float
    parts: Sequence[str]
    checkpoint: str | None
    seed: int
    quantize: Literal["nf4"] | None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"peft.rank is {self.rank}, expected a whole number of at least 1")
        if self.quantize is not None and not is_bitsandbytes_available():
            raise ConfigError("peft.quantize needs bitsandbytes: pip install 'grit-lightning[quantize]'")

    def fit(self, model: PreTrainedModel, parts: Mapping[str, tuple[str, ...]]) -> None:
        """Freeze a model and add adapters to its linear layers, in the model's dtype.

        Args:
            model: a model without adapters; changed in place.
            parts: for each part of the model family, the prefixes of its parameter names.

        Raises:
            ConfigError: ``self.parts`` names a part that the model family does not have.
            CheckpointError: the folder of adapters cannot be loaded.
        """
        model.requires_grad_(False)
        dtype = model.dtype
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                # Otherwise bitsandbytes repacks the weights at the first generation, into a form without gradients.
                layer.support_avx512bf16_for_cpu = False
        if self.checkpoint is None:
            targets = _linear_layers(model, self._prefixes(parts))
            # All ranks must start from the same adapters.
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                model.add_adapter(
                    LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets), adapter_name=TRAINED
                )
        else:
            _load(model, self.checkpoint)
        for parameter in model.parameters():
            if parameter.requires_grad:  # PEFT makes adapters float32; float32 masters are the optimizer's
                parameter.data = parameter.data.to(dtype)

    def quantization(self, parts: Mapping[str, tuple[str, ...]], compute: torch.dtype) -> BitsAndBytesConfig | None:
        """Return the config with which ``from_pretrained`` quantizes the language model; ``None`` without quantization.

        The LM head, the vision tower and the projector keep their dtype. Vision tower and projector are small, and
        their weights are read only once for a whole group.

        Args:
            parts: for each part of the model family, the prefixes of its parameter names.
            compute: dtype to which quantized weights are converted for matrix products.
        """
        if self.quantize is None:
            return None
        unquantized = [prefix for part, prefixes in parts.items() if part != "language" for prefix in prefixes]
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=["lm_head", *unquantized],  # despite its name, it applies to 4 bits, too
        )

    def bits(self, model: PreTrainedModel, parts: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
        """Return the bits per weight of each quantized parameter, by name; empty without quantization.

        NF4 takes 4 bits per weight. With double quantization, the scales add 0.127 bits per weight (arXiv 2305.14314,
        section 3).

        Args:
            model: the model, with or without its weights (meta device).
            parts: for each part of the model family, the prefixes of its parameter names.
        """
        if self.quantize is None:
            return {}
        weights = {f"{layer}.weight" for layer in _linear_layers(model, parts["language"])}
        frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
        return dict.fromkeys(weights & frozen, 4.127)

    def _prefixes(self, parts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        if unknown := next((part for part in self.parts if part not in parts), None):
            raise ConfigError(f"peft.parts: {unknown} is none of {', '.join(parts)}")
        return tuple(prefix for part in self.parts for prefix in parts[part])


def _linear_layers(model: PreTrainedModel, prefixes: tuple[str, ...]) -> list[str]:
    """Return the names of the linear layers whose names start with one of the prefixes, except the LM head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head and name.startswith(prefixes)
    ]


def _load(model: PreTrainedModel, folder: str) -> None:
    """Load a folder's adapters twice: to train them, and as the frozen reference."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two sets are intended
            for name in (REFERENCE, TRAINED):
                model.load_adapter(folder, adapter_name=name, is_trainable=name == TRAINED)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: cannot be loaded as adapters: {reason}") from error
    model.set_adapter(TRAINED)


def has_adapters(model: PreTrainedModel) -> bool:
    """Tell whether the model has adapters, which are then trained in place of its own weights."""
    return bool(adapted(model))


def saved_names(model: PreTrainedModel) -> set[str]:
    """Return the ``state_dict`` names that a run's checkpoint holds: those of trained adapters, else all."""
    names = set(model.state_dict())
    return {name for name in names if f".{TRAINED}." in name} if has_adapters(model) else names


def adapted(model: nn.Module) -> list[str]:
    """Return the names of the layers that have adapters."""
    return [name for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]


def trained_sentence(model: PreTrainedModel) -> str:
    """Return one line on how many parameters are trained and which layers have adapters, for logs."""
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    total = sum(map(_num_weights, model.parameters()))
    sentence = f"{trained:,} of {total:,} parameters are trained"
    layers = Counter(name.rpartition(".")[2] for name in adapted(model))
    shown = ", ".join(f"{count} {name}" for name, count in layers.items())
    return f"{sentence}: adapters in {shown}" if layers else sentence


def _num_weights(value: nn.Parameter) -> int:
    packed = getattr(value, "quant_state", None)  # several 4-bit weights share one stored number
    return value.numel() if packed is None else packed.shape.numel()


@contextmanager
def as_at_start(model: PreTrainedModel) -> Iterator[None]:
    """Make the model compute what it did before training, while the block runs.

    Fresh adapters are disabled; adapters that were loaded from a folder are replaced by their frozen copy.
    """
    if REFERENCE in model.peft_config:
        model.set_adapter(REFERENCE)
    else:
        model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
        model.set_adapter(TRAINED)


def merge(model: PreTrainedModel) -> None:
    """Merge the trained adapters into the weights and remove them. The result is an ordinary model."""
    for name in adapted(model):
        layer = model.get_submodule(name)
        assert isinstance(layer, BaseTunerLayer)
        layer.merge(adapter_names=[TRAINED])
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
