"""Low-rank adapters (LoRA, arXiv 2106.09685) through PEFT: fitted to a model, put aside for the reference, merged.

The model keeps its class and its names; adapters sit inside its linear layers. Only they are trained and saved.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

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
    """

    rank: int
    alpha: float
    parts: Sequence[str]
    checkpoint: str | None
    seed: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"peft.rank is {self.rank}, expected a whole number of at least 1")

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
        if self.checkpoint is None:
            # bf16 would lose updates of a small learning rate; and all ranks must start from the same.
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                model.add_adapter(
                    LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=self._targets(model, parts)),
                    adapter_name=TRAINED,
                )
        else:
            _load(model, self.checkpoint)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _targets(self, model: PreTrainedModel, parts: Mapping[str, tuple[str, ...]]) -> list[str]:
        if unknown := next((part for part in self.parts if part not in parts), None):
            raise ConfigError(f"peft.parts: {unknown} is none of {', '.join(parts)}")
        beginnings = tuple(beginning for part in self.parts for beginning in parts[part])
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
    total = sum(value.numel() for value in model.parameters())
    sentence = f"{trained:,} of {total:,} parameters are trained"
    layers = Counter(name.rpartition(".")[2] for name in adapted(model))
    shown = ", ".join(f"{count} {name}" for name, count in layers.items())
    return f"{sentence}: adapters in {shown}" if layers else sentence


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
