"""Tests of the prompt order: a pure function of (seed, step) that shows each sample once per epoch on any ranks."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from grit_lightning.data.stream import PromptBatches, PromptStream, permutation
from grit_lightning.errors import ConfigError, DataError


def sequence(stream: PromptStream, steps: int) -> list[int]:
    return [index for step in range(steps) for _, index in stream.batch(step, 0, 1)]


@pytest.mark.parametrize(("samples", "prompts"), [(20, 4), (7, 3), (3, 8), (1, 1)])
def test_each_epoch_shows_each_sample_once(samples, prompts):
    shown = sequence(PromptStream(samples, prompts, seed=0), steps=samples * 3)
    epochs = [shown[start : start + samples] for start in range(0, len(shown), samples)]
    assert len(epochs) == 3 * prompts
    assert all(sorted(epoch) == list(range(samples)) for epoch in epochs)


def test_epochs_and_seeds_differ():
    orders = {permutation(seed, epoch, 20) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_the_order_of_one_seed_is_pinned():
    assert PromptStream(5, 3, seed=0).batch(4, 0, 1) == [(0, 3), (1, 0), (2, 4)]


def test_any_step_can_be_computed_without_the_steps_before_it():
    stream = PromptStream(7, 3, seed=5)
    in_order = [stream.batch(step, 0, 1) for step in range(30)]
    for step in (29, 3, 17, 0):
        permutation.cache_clear()
        assert PromptStream(7, 3, seed=5).batch(step, 0, 1) == in_order[step]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_ranks_partition_the_slots_of_one_process(world_size):
    stream = PromptStream(20, 8, seed=1)
    for step in range(6):
        parts = [stream.batch(step, rank, world_size) for rank in range(world_size)]
        assert sorted(itertools.chain(*parts)) == stream.batch(step, 0, 1)
        assert all(slot % world_size == rank for rank, part in enumerate(parts) for slot, _ in part)


def test_fewer_prompts_than_ranks_is_a_config_error():
    with pytest.raises(ConfigError) as caught:
        PromptStream(20, 2, seed=0).batch(0, 0, 4)
    expected = "data.prompts_per_step is 2; expected at least one prompt for each of the 4 processes"
    assert str(caught.value) == expected


def test_batches_start_at_the_requested_step():
    stream = PromptStream(7, 3, seed=5)
    start = [0]
    batches = PromptBatches(
        stream=stream, prompts_at=lambda i: [str(i)] * 2, first_step=lambda: start[0], rank=1, world_size=2
    )
    from_0 = list(itertools.islice(batches, 6))
    start[0] = 4
    from_4 = list(itertools.islice(batches, 2))
    assert [batch.step for batch in from_0 + from_4] == [0, 1, 2, 3, 4, 5, 4, 5]
    assert [batch.prompts for batch in from_4] == [batch.prompts for batch in from_0[4:]]
    assert from_0[0].prompts == tuple((slot, str(index)) for slot, index in stream.batch(0, 1, 2) for _ in range(2))


def batches_of(prompts_at, **options) -> PromptBatches:
    stream = PromptStream(7, 3, seed=5)
    return PromptBatches(stream=stream, prompts_at=prompts_at, first_step=lambda: 2, rank=0, world_size=1, **options)


def test_batches_are_encoded_ahead_by_threads_of_their_own():
    seen: list[tuple[str, int]] = []

    def prompts_at(index):
        seen.append((threading.current_thread().name, index))
        return [str(index)]

    served = iter(batches_of(prompts_at, ahead=2, workers=2))
    first = next(served)
    served.close()
    plain = next(iter(batches_of(lambda index: [str(index)])))
    assert (first.step, first.prompts) == (plain.step, plain.prompts)
    assert all(name.startswith("encode") for name, _ in seen)
    asked = [index for step in (2, 3, 4) for _, index in PromptStream(7, 3, seed=5).batch(step, 0, 1)]
    assert {index for _, index in seen} <= set(asked)


def test_the_wait_of_a_batch_is_that_for_its_own_prompts():
    def slow(index):
        time.sleep(0.05)
        return [str(index)]

    for workers, ahead, least, most in ((0, 0, 0.0, 1.0), (3, 1, 0.04, 1.0)):
        served = iter(batches_of(slow, ahead=ahead, workers=workers))
        assert least <= next(served).waited <= most
        served.close()
    served = iter(batches_of(slow, ahead=1, workers=3))
    next(served)
    time.sleep(0.3)  # a step, in which the next batch is encoded
    assert next(served).waited < 0.04
    served.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_encoding_is_raised_where_its_batch_is_asked_for(workers: int):
    bad = PromptStream(7, 3, seed=5).sample_index(3, 1)

    def prompts_at(index):
        if index == bad:
            raise DataError("bad pixels", "f:1")
        return [str(index)]

    served = iter(batches_of(prompts_at, ahead=workers, workers=workers))
    if bad not in [index for _, index in PromptStream(7, 3, seed=5).batch(2, 0, 1)]:
        next(served)
    with pytest.raises(DataError, match="f:1: bad pixels"):
        next(served)


def test_no_thread_is_left_when_the_batches_end():
    before = set(threading.enumerate())  # some of an earlier test may still be ending, so threads are not counted
    served = iter(batches_of(lambda index: [str(index)], ahead=1, workers=2))
    next(served)
    started = set(threading.enumerate()) - before
    assert started
    served.close()
    deadline = time.monotonic() + 5
    while any(thread.is_alive() for thread in started) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread for thread in started if thread.is_alive()]
    assert not set(threading.enumerate()) - before
