"""Recording and replay of a function as a CUDA graph, which removes Python and kernel launches from the decode loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 2
"""Number of calls before a recording, because CUDA libraries allocate their workspaces in the first calls."""


class Replayed:
    """A function that the first call on CUDA records as a graph and every call replays; a plain call elsewhere.

    Except for its arguments, all tensors that the function reads and writes must keep their memory and shape; use
    :meth:`again` after one of them has changed. The next call overwrites the result.

    Args:
        function: a function from tensors to a tensor. It must not synchronize with the device. It must be idempotent,
            because the first call runs it several times.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._arguments: tuple[Tensor, ...] = ()
        self._result = torch.empty(0)

    def again(self) -> Replayed:
        """Return a copy that records again, for use after memory has moved or shapes have changed."""
        return Replayed(self.function)

    def __call__(self, *arguments: Tensor) -> Tensor:
        """Return the function's result."""
        if not arguments[0].is_cuda:
            return self.function(*arguments)
        if self._graph is None:
            self._record(arguments)
        for own, given in zip(self._arguments, arguments, strict=True):
            own.copy_(given)
        assert self._graph is not None
        self._graph.replay()
        return self._result

    def _record(self, arguments: tuple[Tensor, ...]) -> None:
        self._arguments = tuple(argument.clone() for argument in arguments)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                self.function(*self._arguments)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = self.function(*self._arguments)
