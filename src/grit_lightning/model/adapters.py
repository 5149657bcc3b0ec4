"""Low-rank adapters (LoRA, arXiv 2106.09685) through PEFT: fitted to a model, put aside for the reference, merged.

The model keeps its class and its names; adapters sit inside its linear layers. Only they are trained and saved.
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
"""Names of the adapters that are trained, and of a frozen copy of what they were at the start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRA:
    """Which layers get adapters, and of what size. Values live in ``conf/peft``.

    There is no dropout: completions are drawn without, so that log-probabilities with it would be another policy's.

    Attributes:
        rank: of the update of a layer's weight.
        alpha: the update is scaled by alpha / rank.
        parts: of the model that get adapters, all their linear layers: ``language``, ``vision``, ``projector``.
        checkpoint: a folder of adapters in PEFT's layout to go on from; ``None`` for fresh ones, which change nothing.
        seed: of the weights of fresh adapters.
        quantize: ``nf4`` to hold the language model's frozen weights in 4 bits (QLoRA, arXiv 2305.14314), which needs
            bitsandbytes; ``None`` to hold them as they are.

    Raises:
        ConfigError: a rank below 1; no bitsandbytes.
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
        """Freeze a model and put adapters into its linear layers, float32 whatever the model's own dtype.

        Args:
            model: without adapters.
            parts: beginnings of the parameter names of each part, as a model family has them.

        Raises:
            ConfigError: a part the model does not have.
            CheckpointError: the folder of adapters cannot be read.
        """
        model.requires_grad_(False)
        for layer in model.modules():
            if hasattr(layer, "support_avx512bf16_for_cpu"):
                # bitsandbytes would pack the weights at the first generation, in a form that has no gradient.
                layer.support_avx512bf16_for_cpu = False
        if self.checkpoint is None:
            targets = _linear_layers(model, self._beginnings(parts))
            # bf16 would lose updates of a small learning rate; and all ranks must start from the same.
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                model.add_adapter(
                    LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets), adapter_name=TRAINED
                )
        else:
            _load(model, self.checkpoint)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def quantization(self, parts: Mapping[str, tuple[str, ...]], compute: torch.dtype) -> BitsAndBytesConfig | None:
        """What ``from_pretrained`` is to hold in 4 bits, and the dtype it multiplies in. The head is never among it.

        Vision tower and projector are small, and read once for a whole group: they stay as they are.
        """
        if self.quantize is None:
            return None
        whole = [beginning for part, names in parts.items() if part != "language" for beginning in names]
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=["lm_head", *whole],  # whatever the bits, this is its name
        )

    def bits(self, model: PreTrainedModel, parts: Mapping[str, tuple[str, ...]]) -> dict[str, float]:
        """Bits a weight takes, by the name of its parameter, for those that are held in fewer than their dtype says.

        NF4 has 4 bits for a weight, and with double quantization 0.127 for its share of the scales (arXiv 2305.14314,
        section 3).
        """
        if self.quantize is None:
            return {}
        weights = {f"{layer}.weight" for layer in _linear_layers(model, parts["language"])}
        frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
        return dict.fromkeys(weights & frozen, 4.127)

    def _beginnings(self, parts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        if unknown := next((part for part in self.parts if part not in parts), None):
            raise ConfigError(f"peft.parts: {unknown} is none of {', '.join(parts)}")
        return tuple(beginning for part in self.parts for beginning in parts[part])


def _linear_layers(model: PreTrainedModel, beginnings: tuple[str, ...]) -> list[str]:
    """Names of the linear layers whose names begin so, but for the head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer is not head and name.startswith(beginnings)
    ]


def _load(model: PreTrainedModel, folder: str) -> None:
    """The adapters of a folder twice: to be trained, and as the reference."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # two are what is wanted
            for name in (REFERENCE, TRAINED):
                model.load_adapter(folder, adapter_name=name, is_trainable=name == TRAINED)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: cannot be loaded as adapters: {reason}") from error
    model.set_adapter(TRAINED)


def has_adapters(model: PreTrainedModel) -> bool:
    """Whether adapters are trained in place of the model."""
    return bool(adapted(model))


def saved_names(model: PreTrainedModel) -> set[str]:
    """The names of a model's state that a checkpoint of a run holds: trained adapters alone, or all without any."""
    names = set(model.state_dict())
    return {name for name in names if f".{TRAINED}." in name} if has_adapters(model) else names


def adapted(model: nn.Module) -> list[str]:
    """Names of the layers that have adapters."""
    return [name for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]


def trained_sentence(model: PreTrainedModel) -> str:
    """What of a model is trained, in one line."""
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    total = sum(map(_size, model.parameters()))
    sentence = f"{trained:,} of {total:,} parameters are trained"
    layers = Counter(name.rpartition(".")[2] for name in adapted(model))
    shown = ", ".join(f"{count} {name}" for name, count in layers.items())
    return f"{sentence}: adapters in {shown}" if layers else sentence


def _size(value: nn.Parameter) -> int:
    packed = getattr(value, "quant_state", None)  # two weights of 4 bits to a number
    return value.numel() if packed is None else packed.shape.numel()


@contextmanager
def as_at_start(model: PreTrainedModel) -> Iterator[None]:
    """Within it, the model computes what it did before training: adapters off, or those it went on from."""
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
    """Add what adapters learned to the weights, and take the adapters out, so that an ordinary model is left."""
    for name in adapted(model):
        layer = model.get_submodule(name)
        assert isinstance(layer, BaseTunerLayer)
        layer.merge(adapter_names=[TRAINED])
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config
    model._hf_peft_config_loaded = False
