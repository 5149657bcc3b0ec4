"""Tests of memory that keeps its address: reuse, growth, and graphs that are recorded once for each size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from grit_lightning.rollout import decoding
from grit_lightning.rollout.static_memory import MOST_GRAPHS, StaticMemory
from support.decoded import LIMIT, G, decoded

CPU = torch.device("cpu")


class Recorded:
    """Stands for a CUDA graph: replaying it runs the function that was recorded."""

    def __init__(self, function) -> None:
        self.replay = function


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> StaticMemory:
    monkeypatch.setattr(StaticMemory, "_record", lambda self, function, changed: Recorded(function))
    return StaticMemory()


def test_memory_keeps_its_address_until_it_must_grow(memory) -> None:
    first = memory.take("keys", (2, 3), torch.float32, CPU).fill_(7)
    smaller = memory.take("keys", (4, 1), torch.float32, CPU)
    assert smaller.data_ptr() == first.data_ptr()
    assert smaller.tolist() == [[7], [7], [7], [7]]
    assert memory.take("values", (2, 3), torch.float32, CPU).data_ptr() != first.data_ptr()
    assert memory.take("keys", (7,), torch.float32, CPU).shape == (7,)
    assert memory.take("keys", (2,), torch.bfloat16, CPU).dtype == torch.bfloat16


def test_a_function_is_recorded_once_for_each_key(memory) -> None:
    calls: list[str] = []
    for key in ("a", "b", "a", "a"):
        memory.run(key, lambda key=key: calls.append(key), [])
    assert calls == ["a", "b", "a", "a"]
    assert memory.recordings == 2


def test_graphs_are_dropped_when_memory_or_weights_move_or_there_are_too_many(memory) -> None:
    layer = nn.Linear(2, 2)
    memory.check_weights(layer)

    def recordings() -> int:
        before = memory.recordings
        memory.run("a", lambda: None, [])
        return memory.recordings - before

    assert [recordings(), recordings()] == [1, 0]
    memory.take("keys", (2,), torch.float32, CPU)
    assert [recordings(), recordings()] == [1, 0]
    memory.check_weights(layer)
    assert recordings() == 0
    layer.weight = nn.Parameter(torch.zeros(2, 2))
    memory.check_weights(layer)
    assert recordings() == 1
    for key in range(MOST_GRAPHS):
        memory.run(key, lambda: None, [])
    assert recordings() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_calls_before_a_recording_change_nothing() -> None:
    memory, value = StaticMemory(), torch.zeros(1, device="cuda")
    for _ in range(3):
        memory.run("a", lambda: value.add_(1), [value])
    assert value.item() == 3


def test_later_rollouts_of_the_same_sizes_record_nothing(backbone, prompts, monkeypatch) -> None:
    def run(self: StaticMemory, key, function, changed) -> None:
        self.recordings += key not in self._graphs
        self._graphs[key] = function
        function()

    monkeypatch.setattr(StaticMemory, "run", run)
    model = backbone.load_model()
    expected = decoded(model, backbone, prompts, [LIMIT] * 12)
    # Where there is CUDA, steps are run as graphs; here, as functions that stand for them.
    monkeypatch.setattr(decoding, "replays", lambda static, device: static)
    monkeypatch.setattr(decoding, "LOOK", 2)
    lengths = [2, 3, 4, 20, 5, 6, 7, 8, 9, 10, 11, 12]
    counts = []
    for _ in range(3):
        before = decoding._MEMORIES[model].recordings if model in decoding._MEMORIES else 0
        rows = decoded(model, backbone, prompts, lengths, static=True)
        assert rows == [row[:length] for row, length in zip(expected, lengths, strict=True)]
        counts.append(decoding._MEMORIES[model].recordings - before)
    assert 3 <= counts[0] <= 6  # sizes of the batch as it shrinks
    assert counts[1:] == [0, 0]
    assert G * len(prompts) == 12
