"""The weighted sum of reward components, scored at once or on a background thread."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from numbers import Real
from time import perf_counter
from typing import Any, NamedTuple

from grit_lightning.errors import ConfigError
from grit_lightning.types import Completion, Group, Sample, Score

_log = logging.getLogger(__name__)

Component = Callable[[Sample, Completion], float | Future[float | None] | None]
"""A reward component with its options bound. It returns a number, ``None`` for unscored, or a future of either."""

_Value = float | None | Future[float | None] | BaseException

_FAILURES = (Exception, CancelledError, SystemExit)
"""Exceptions that make a completion unscored: a reward that calls ``sys.exit`` must not end training silently."""


class Scored(NamedTuple):
    """Scores of several groups.

    Attributes:
        scores: for each group, the scores of its completions in order.
        seconds: time spent on scoring, without the time in the queue.
    """

    scores: list[tuple[Score, ...]]
    seconds: float


class Rewards:
    """Scores completions by named components: total = Σ weight × component.

    A component with weight 0 is computed and reported, but does not enter the total. A component that raises, or
    returns anything but a finite number, a bool or ``None``, is unscored for that completion; it never counts as 0. If
    a component with nonzero weight is unscored, the total of the completion is ``None``.

    Args:
        components: components by name, each ``{"weight": number, "fn": fn(sample, completion) -> float | None}``.

    Raises:
        ConfigError: the mapping of components or one of its entries is invalid.
    """

    def __init__(self, components: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(components, Mapping) or not components:
            raise ConfigError(f"reward.components holds {components!r}: expected at least one named component.")
        if "total" in components:
            raise ConfigError("reward.components.total has the name of the weighted sum: expected another name.")
        parts = {str(name): _validated(str(name), part) for name, part in components.items()}
        self._fns: dict[str, Component] = {name: fn for name, (fn, _) in parts.items()}
        self.weights: dict[str, float] = {name: weight for name, (_, weight) in parts.items()}
        self._warned: set[str] = set()
        self._worker: ThreadPoolExecutor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The components' names, in the order of the config."""
        return tuple(self._fns)

    def score(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion by every component. Exceptions of components are recorded in ``Score.errors``."""
        return self.score_all([(sample, completion)])[0]

    def score_all(self, pairs: Iterable[tuple[Sample, Completion]]) -> list[Score]:
        """Score completions in order. The requests of all completions are sent to the judges before waiting for any."""
        return self.begin(pairs)()

    def begin(self, pairs: Iterable[tuple[Sample, Completion]]) -> Callable[[], list[Score]]:
        """Send all requests to the judges; return a function that waits for them and returns the scores in order."""
        begun = [(sample, self._begin(sample, completion)) for sample, completion in pairs]
        return lambda: [self._finish(sample, values) for sample, values in begun]

    def submit(self, groups: Iterable[Group]) -> Future[Scored]:
        """Score groups on a single background thread, in the order of submission, while the caller continues."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rewards")
        return self._worker.submit(self._score_all, list(groups))

    def __getstate__(self) -> dict[str, Any]:
        # A thread cannot be copied or pickled; a copy starts its own thread.
        return self.__dict__ | {"_worker": None}

    def _score_all(self, groups: list[Group]) -> Scored:
        start = perf_counter()
        scores = iter(self.score_all((group.prompt.sample, one) for group in groups for one in group.completions))
        of_groups = [tuple(islice(scores, len(group.completions))) for group in groups]
        return Scored(of_groups, perf_counter() - start)

    def _begin(self, sample: Sample, completion: Completion) -> dict[str, _Value]:
        """Return the value or the exception of each component, by name."""
        values: dict[str, _Value] = {}
        for name, fn in self._fns.items():
            try:
                values[name] = fn(sample, completion)
            except _FAILURES as error:
                values[name] = error
        return values

    def _finish(self, sample: Sample, values: Mapping[str, _Value]) -> Score:
        components: dict[str, float | None] = {}
        errors: dict[str, str] = {}
        for name, value in values.items():
            try:
                if isinstance(value, BaseException):
                    raise value
                components[name] = _number(value.result() if isinstance(value, Future) else value)
            except _FAILURES as error:
                components[name] = None
                reason = " ".join(str(error).split()).rstrip(".")
                kind = type(error).__name__
                errors[name] = f"Reward {name} could not score sample {sample.id}: {kind}: {reason}."
                self._warn(name, errors[name])
        return Score(components, self._total(components), errors)

    def _total(self, components: Mapping[str, float | None]) -> float | None:
        terms = []
        for name, weight in self.weights.items():
            if weight:
                value = components[name]
                if value is None:
                    return None
                terms.append(weight * value)
        return math.fsum(terms)

    def _warn(self, name: str, message: str) -> None:
        # Warn once per component: a judge that is down fails for every completion. Score.errors has every failure.
        if name not in self._warned:
            self._warned.add(name)
            _log.warning(
                "%s The completion stays unscored. Later failures of this reward are counted but not logged.", message
            )


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real) and getattr(value, "ndim", None) == 0:
        value = value.item()  # type: ignore[attr-defined]  # a number, a bool or a 0-d array of numpy, or a 0-d tensor
    if not isinstance(value, Real):
        raise TypeError(f"it returned {type(value).__name__}, expected a number, a bool or None")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"it returned {number}, expected a finite number or None")
    return number


def _validated(name: str, part: object) -> tuple[Component, float]:
    key = f"reward.components.{name}"
    if not isinstance(part, Mapping) or set(part) != {"weight", "fn"}:
        raise ConfigError(f"{key} holds {part!r}: expected the two keys weight and fn.")
    fn, weight = part["fn"], part["weight"]
    if isinstance(weight, bool) or not isinstance(weight, Real) or not math.isfinite(weight):
        raise ConfigError(f"{key}.weight holds {weight!r}: expected a finite number.")
    if not callable(fn):
        raise ConfigError(
            f"{key}.fn holds {fn!r}: expected a function, written {{_target_: my_module.my_reward, _partial_: true}}."
        )
    try:
        inspect.signature(fn).bind(None, None)
    except TypeError as error:
        raise ConfigError(f"{key}.fn cannot be called as fn(sample, completion): {error}.") from error
    except ValueError:  # some built-in callables have no signature to check
        pass
    return fn, float(weight)
