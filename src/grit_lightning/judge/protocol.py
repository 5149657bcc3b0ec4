"""What a judge is to the rewards and the evaluation, and how they wait for one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar, runtime_checkable

A = TypeVar("A")
B = TypeVar("B")


class Judge(Protocol):
    """A judge: any callable of this shape."""

    def __call__(self, question: str, reference: str, answer: str) -> float | None:
        """Agreement of ``answer`` with ``reference``, 0 to 1, or ``None`` when it could not be judged."""


@runtime_checkable
class AsksAhead(Protocol):
    """A judge that takes its time: all that is to be asked can be asked at once, before the first score is there."""

    def ask(self, question: str, reference: str, answer: str) -> Future[float | None]:
        """What calling the judge returns, later."""


def begin_judging(judge: Judge, question: str, reference: str, answer: str) -> Future[float | None]:
    """Ask now. A judge that does not ask ahead has answered when this returns."""
    if isinstance(judge, AsksAhead):
        return judge.ask(question, reference, answer)
    done: Future[float | None] = Future()
    done.set_result(judge(question, reference, answer))
    return done


def then(future: Future[A], function: Callable[[A], B]) -> Future[B]:
    """The function's value of what ``future`` will bring; an exception of either is that of the new future."""
    later: Future[B] = Future()

    def settle(done: Future[A]) -> None:
        try:
            later.set_result(function(done.result()))
        except BaseException as error:
            later.set_exception(error)

    future.add_done_callback(settle)
    return later


def gather(futures: Sequence[Future[A]]) -> Future[list[A]]:
    """All values in order, once the last is there; the exception of the first that has one. At least one future."""
    later: Future[list[A]] = Future()
    lock, left = threading.Lock(), len(futures)

    def settle(_: Future[A]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last:
            try:
                later.set_result([future.result() for future in futures])
            except BaseException as error:
                later.set_exception(error)

    for future in futures:
        future.add_done_callback(settle)
    return later
