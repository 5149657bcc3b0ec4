"""The bounded cache keeps what was used last."""

from __future__ import annotations

import pickle

from grit_lightning.data.cache import BoundedCache


def test_least_recently_used_leaves_first():
    made: list[str] = []
    cache: BoundedCache[str, str] = BoundedCache(2)

    def use(key: str) -> str:
        return cache.get(key, lambda: made.append(key) or key.upper())

    assert [use(key) for key in "abacab"] == list("ABACAB")
    assert made == ["a", "b", "c", "b"]  # c pushed out b, since a was used after b
    assert len(cache) == 2


def test_capacity_zero_keeps_nothing():
    cache: BoundedCache[int, int] = BoundedCache(0)
    assert [cache.get(1, lambda: 10), cache.get(1, lambda: 11), len(cache)] == [10, 11, 0]


def test_pickles():
    cache: BoundedCache[str, int] = BoundedCache(1)
    cache.get("a", lambda: 1)
    assert pickle.loads(pickle.dumps(cache)).get("a", lambda: 2) == 1
