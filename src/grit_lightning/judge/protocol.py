"""The judge interface of rewards and evaluation, and functions that combine futures of scores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar, runtime_checkable

from grit_lightning.grounding.options import chosen_option

A = TypeVar("A")
B = TypeVar("B")


class Judge(Protocol):
    """Any callable with this signature is a judge."""

    def __call__(self, question: str, reference: str, answer: str) -> float | None:
        """Return the agreement of ``answer`` with ``reference``, 0 to 1, or ``None`` if there is no score."""


def answer_for(judge: Judge, answer: str, options: Sequence[str]) -> str:
    """Return the answer that a judge is asked about.

    It is the text of the option that the answer names by its letter alone, so that judges need not know the letters. A
    judge with the attribute ``reads_options`` gets the answer as it is.
    """
    return answer.strip() if getattr(judge, "reads_options", False) else chosen_option(answer, options)


@runtime_checkable
class AsksAhead(Protocol):
    """A slow judge that accepts all questions at once, before the first score has arrived."""

    def ask(self, question: str, reference: str, answer: str) -> Future[float | None]:
        """Start to judge, and return a future of the score that calling the judge returns."""


def begin_judging(judge: Judge, question: str, reference: str, answer: str) -> Future[float | None]:
    """Ask the judge and return a future of the score. A judge without ``ask`` is called at once, which may block."""
    if isinstance(judge, AsksAhead):
        return judge.ask(question, reference, answer)
    done: Future[float | None] = Future()
    done.set_result(judge(question, reference, answer))
    return done


def then(future: Future[A], function: Callable[[A], B]) -> Future[B]:
    """Return a future of ``function`` applied to the result of ``future``; exceptions of either are passed on."""
    later: Future[B] = Future()

    def settle(done: Future[A]) -> None:
        try:
            later.set_result(function(done.result()))
        except BaseException as error:
            later.set_exception(error)

    future.add_done_callback(settle)
    return later


def gather(futures: Sequence[Future[A]]) -> Future[list[A]]:
    """Return a future of all results in order, which completes together with the last of the futures.

    If several futures fail, it gets the exception of the first of them in order. ``futures`` must not be empty.
    """
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
