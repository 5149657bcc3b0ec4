"""Training steps of real-size models without their memory and without a GPU: fake tensors, counted bytes and kernels.

Fake tensors have shapes and dtypes but no values (``torch._subclasses.fake_tensor``). A build of torch without CUDA
cannot differentiate fake CUDA tensors, so these are fake CPU tensors, and the two places that ask for a GPU are told
that they are on one.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel

from grit_lightning.model import products, varlen
from grit_lightning.model.attention import LANGUAGE, set_vision_attention
from grit_lightning.model.backbones.pretrained import PretrainedBackbone
from grit_lightning.model.backbones.recomputation import recompute_activations
from grit_lightning.model.packing import PackedBatch

BLOCK = 512
"""Bytes to which CUDA's allocator rounds up."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors that it has seen, each storage once.

    Attributes:
        live: bytes of the storages that are alive.
        peak: the largest value of ``live`` so far; may be reset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor that was made elsewhere."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // BLOCK) * BLOCK
        if key in self._storages:
            return

        def freed(_: object) -> None:
            self.live -= size
            del self._storages[key]

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                self.watch(value)
        return output


class Kernels(TorchDispatchMode):
    """Counts the operators that launch a kernel, and the bytes of weights that are converted to another dtype.

    Attributes:
        calls: number of calls by operator.
        cast_bytes: bytes of the results of conversions of watched weights.
    """

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.cast_bytes = 0
        self._weights = {value.untyped_storage()._cdata for value in model.parameters()} if model else set()

    @property
    def total(self) -> int:
        """Number of kernels."""
        return sum(self.calls.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if _launches(func):
            self.calls[str(func)] += 1
        if func is torch.ops.aten._to_copy.default and args[0].untyped_storage()._cdata in self._weights:
            self.cast_bytes += output.nbytes
        return output


def _launches(func: Any) -> bool:
    """Tell whether an operator launches a kernel: no view, no mere allocation, no question about metadata."""
    schema = func._schema
    writes = any(value.alias_info is not None and value.alias_info.is_write for value in schema.arguments)
    views = not writes and any(value.alias_info is not None for value in schema.returns)
    allocates = schema.name.startswith(("aten::empty", "aten::new_empty")) or schema.name == "aten::_unsafe_view"
    return not views and not allocates and any(str(value.type).startswith("Tensor") for value in schema.returns)


class Known(Tensor):
    """A tensor with values among fake ones: computed outside their mode until it meets one of them."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(value, FakeTensor) for value in tree_leaves((args, kwargs))):
            return func(*_plain(args), **_plain(kwargs))
        with unset_fake_temporarily():
            return super().__torch_function__(func, types, args, kwargs)


def _plain(values: Any) -> Any:
    return tree_map(lambda value: value.as_subclass(Tensor) if isinstance(value, Known) else value, values)


def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """Return a mode for fake tensors, and make the package take a CPU for a GPU."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    monkeypatch.setattr(products, "has_wide_results", lambda device: True)
    monkeypatch.setattr(varlen, "has_varlen", lambda device: True)
    monkeypatch.setenv("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")  # the checks read values
    return mode


def fake_model(backbone: PretrainedBackbone, mode: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> PreTrainedModel:
    """Return a backbone's model with fake weights, in eval mode, as ``load_model`` would return the real one."""
    model = backbone.outline().eval()
    made: dict[int, Tensor] = {}  # by identity, because weights may be tied
    for module in model.modules():
        for values in (module._parameters, module._buffers):
            for name, value in values.items():
                if value is not None:
                    values[name] = made.setdefault(id(value), _fake(value, mode))
    model.config.get_text_config()._attn_implementation = LANGUAGE[backbone.attn_implementation]
    set_vision_attention(model, backbone.attn_implementation)
    if backbone.gradient_checkpointing:
        recompute_activations(model)
    _know_grids(sys.modules[type(model).__module__], mode, monkeypatch)
    return model


def _fake(value: Tensor, mode: FakeTensorMode) -> Tensor:
    fake = FakeTensor(mode, value.detach().to("meta"), torch.device("cpu"))
    return nn.Parameter(fake, requires_grad=value.requires_grad) if isinstance(value, nn.Parameter) else fake


def _know_grids(module: ModuleType, mode: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute what vision towers derive from the sizes of images outside the mode, because it depends on values."""
    for name in [name for name in vars(module) if name.startswith("get_vision_")]:
        monkeypatch.setattr(module, name, _outside(vars(module)[name], mode))
    if hasattr(module, "get_max_seqlen"):
        monkeypatch.setattr(module, "get_max_seqlen", lambda *_, **__: 1)  # has no influence on memory
    if hasattr(module, "Qwen3VLTextModel"):  # adds image features at the places of a mask
        added = lambda self, hidden, mask, features: hidden.clone() + features.sum()  # noqa: E731
        monkeypatch.setattr(module.Qwen3VLTextModel, "_deepstack_process", added)


def _outside(function: Callable[..., Any], mode: FakeTensorMode) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with unset_fake_temporarily():
            found = function(*_plain(args), **kwargs)
        return tree_map(lambda value: mode.from_tensor(value) if isinstance(value, Tensor) else value, found)

    return call


def fake_vision(vision: dict[str, Tensor], mode: FakeTensorMode) -> dict[str, Tensor]:
    """Return a vision tower's arguments as fake tensors, but the sizes of images with their values."""
    return {
        name: value.as_subclass(Known) if "grid" in name else mode.from_tensor(value) for name, value in vision.items()
    }


def fake_batch(batch: PackedBatch, mode: FakeTensorMode) -> PackedBatch:
    """Return a packed batch of fake tensors."""
    tensors = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    fakes: dict[str, Any] = {
        name: mode.from_tensor(value) for name, value in tensors.items() if isinstance(value, Tensor)
    }
    return replace(batch, vision=fake_vision(dict(batch.vision), mode), **fakes)


def watch_model(live: LiveBytes, model: nn.Module) -> None:
    """Count the weights and buffers of a model."""
    for value in (*model.parameters(), *model.buffers()):
        live.watch(value)
