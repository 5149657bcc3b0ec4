"""Memory that keeps its address from rollout to rollout, and CUDA graphs that are recorded on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

WARM_UP = 2
"""Number of calls before a recording, because CUDA libraries and compiled kernels set themselves up in the first."""

MOST_GRAPHS = 128
"""Number of recordings to keep. Beyond it all are dropped, which happens only if the sizes of batches keep changing."""


class StaticMemory:
    """Named tensors that keep their memory while they do not grow, and graphs of functions on them.

    Graphs share one memory pool, because only one runs at a time. They are dropped when any of the memory moves, or
    when the weights do, as those of a sharded model do.
    """

    def __init__(self) -> None:
        self._flat: dict[str, Tensor] = {}
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._weights: tuple[int, ...] = ()
        self.recordings = 0  # since the beginning

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a contiguous tensor of a shape at the beginning of the memory of a name, with any values."""
        size = math.prod(shape)
        flat = self._flat.get(name)
        if flat is None or flat.numel() < size or flat.dtype != dtype or flat.device != device:
            self._graphs.clear()
            self._flat.pop(name, None)
            with torch.inference_mode(False):  # else only code in inference mode could write to it later
                self._flat[name] = flat = torch.empty(size, dtype=dtype, device=device)
        return flat[:size].view(*shape)

    def check_weights(self, model: nn.Module) -> None:
        """Drop the graphs if a weight of the model has another address than at the last call."""
        addresses = tuple(value.data_ptr() for value in model.parameters())
        if addresses != self._weights:
            self._graphs.clear()
            self._weights = addresses

    def run(self, key: Hashable, function: Callable[[], None], changed: Sequence[Tensor]) -> None:
        """Run a function as a graph, which is recorded at the first call with the key.

        Args:
            key: what the shapes and the code of the function depend on.
            function: works on static memory and weights alone, in place, and does not synchronize with the device.
            changed: small tensors that the function changes. They are set back after the calls before a recording.
        """
        if key not in self._graphs:
            if len(self._graphs) >= MOST_GRAPHS:
                self._graphs.clear()
            self._graphs[key] = self._record(function, changed)
            self.recordings += 1
        self._graphs[key].replay()

    def _record(self, function: Callable[[], None], changed: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        before = [value.clone() for value in changed]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        for value, old in zip(changed, before, strict=True):
            value.copy_(old)
        pool = next((graph.pool() for graph in self._graphs.values()), None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            function()
        return graph
