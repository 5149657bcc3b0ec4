"""A function of tensors, recorded once as a CUDA graph and replayed: Python and launches leave the decode loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 2
"""Calls before a recording: libraries allocate their workspaces in the first."""


class Replayed:
    """``function`` on CUDA, replayed from its first call on; elsewhere ``function`` itself.

    All that it reads and writes beside its arguments must stay where it is; :meth:`again` says that something moved.
    The result is overwritten by the next call.

    Args:
        function: of tensors, to a tensor; it may not wait for the device. Repeating it must do no harm.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._arguments: tuple[Tensor, ...] = ()
        self._result = torch.empty(0)

    def again(self) -> Replayed:
        """One that records anew, as memory has moved or shapes have changed."""
        return Replayed(self.function)

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The function's result."""
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
