"""Tests of the weighted sum of rewards: weights, failures, futures and background scoring."""

import copy
import logging
import math
import pickle
import sys
import threading
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from grit_lightning.errors import ConfigError
from grit_lightning.rewards.weighted_sum import Rewards
from support.scoring import score_group


def constant(value):
    return lambda sample, completion: value


def length(sample, completion):
    return len(completion.text)


def broken(sample, completion):
    raise RuntimeError("the service\nis away.")


def build(**parts):
    return Rewards({name: {"weight": weight, "fn": fn} for name, (weight, fn) in parts.items()})


def test_total_is_the_weighted_sum_of_unweighted_components(make_sample, make_completion):
    rewards = build(a=(2.0, constant(3)), b=(-0.5, constant(True)), c=(0, constant(100.0)))
    score = rewards.score(make_sample(), make_completion("x"))
    assert score.components == {"a": 3.0, "b": 1.0, "c": 100.0}
    assert all(type(value) is float for value in score.components.values())
    assert score.total == 2 * 3 - 0.5
    assert score.errors == {}
    assert rewards.names == ("a", "b", "c")
    assert rewards.weights == {"a": 2.0, "b": -0.5, "c": 0.0}


def test_a_failing_component_is_unscored_with_its_reason_and_never_0(make_sample, make_completion, caplog):
    rewards = build(good=(1.0, constant(1.0)), bad=(1.0, broken))
    score = rewards.score(make_sample(), make_completion("x"))
    assert score.components == {"good": 1.0, "bad": None}
    assert score.total is None
    assert score.errors == {"bad": "Reward bad could not score sample cats/1: RuntimeError: the service is away."}


def test_a_failing_component_of_weight_0_does_not_change_the_total(make_sample, make_completion):
    score = build(good=(1.0, constant(0.25)), bad=(0.0, broken)).score(make_sample(), make_completion("x"))
    assert score.total == 0.25
    assert score.components["bad"] is None
    assert set(score.errors) == {"bad"}


def test_none_is_unscored_but_no_error(make_sample, make_completion):
    score = build(good=(1.0, constant(1.0)), judge=(1.0, constant(None))).score(make_sample(), make_completion("x"))
    assert score.components == {"good": 1.0, "judge": None}
    assert score.total is None
    assert score.errors == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "it returned nan, expected a finite number or None"),
        (-math.inf, "it returned -inf, expected a finite number or None"),
        ("1", "it returned str, expected a number, a bool or None"),
        ([1.0], "it returned list, expected a number, a bool or None"),
        (1j, "it returned complex, expected a number, a bool or None"),
        (10**400, "OverflowError"),
    ],
)
def test_a_value_that_is_no_finite_number_is_an_error(make_sample, make_completion, value, reason):
    score = build(bad=(1.0, constant(value))).score(make_sample(), make_completion("x"))
    assert score.components == {"bad": None}
    assert score.total is None
    assert reason in score.errors["bad"]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (True, 1.0),
        (False, 0.0),
        (np.float32(0.5), 0.5),
        (np.int64(2), 2.0),
        (np.bool_(True), 1.0),
        (np.array(0.25), 0.25),
        (torch.tensor(0.75), 0.75),
        (torch.tensor(True), 1.0),
    ],
)
def test_numbers_and_bools_of_numpy_and_torch_are_numbers(make_sample, make_completion, value, number):
    score = build(good=(1.0, constant(value))).score(make_sample(), make_completion("x"))
    assert score.components == {"good": number}
    assert (type(score.components["good"]), score.errors) == (float, {})


@pytest.mark.parametrize("value", [np.array([1.0]), torch.zeros(1)])
def test_arrays_with_a_dimension_are_no_numbers(make_sample, make_completion, value):
    score = build(bad=(1.0, constant(value))).score(make_sample(), make_completion("x"))
    assert "expected a number, a bool or None" in score.errors["bad"]


def test_a_reward_that_calls_sys_exit_has_failed(make_sample, make_completion):
    def leave(sample, completion):
        sys.exit("no key")

    score = build(bad=(1.0, leave), good=(1.0, constant(1.0))).score(make_sample(), make_completion("x"))
    assert score.components == {"bad": None, "good": 1.0}
    assert "SystemExit: no key" in score.errors["bad"]


def test_each_failing_component_is_logged_once_with_its_sample(make_sample, make_completion, caplog):
    rewards = build(bad=(1.0, broken), worse=(1.0, constant("x")))
    with caplog.at_level(logging.WARNING):
        scores = [rewards.score(make_sample(), make_completion("x")) for _ in range(3)]
    assert [set(score.errors) for score in scores] == [{"bad", "worse"}] * 3
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split()[1] for message in messages] == ["bad", "worse"]
    assert all("sample cats/1" in message for message in messages)


def test_score_group_keeps_the_order_of_completions(make_group):
    scores = score_group(build(length=(1.0, length)), make_group("xxx", "", "x"))
    assert [score.total for score in scores] == [3.0, 0.0, 1.0]


def test_submit_scores_on_one_background_thread(make_group):
    go, threads = threading.Event(), set()

    def waits(sample, completion):
        threads.add(threading.current_thread())
        assert go.wait(timeout=30)
        return len(completion.text)

    future = build(waits=(1.0, waits)).submit([make_group("a", "bb"), make_group("ccc")])
    assert not future.done()  # the caller is here, the score is not
    go.set()
    scored = future.result(timeout=30)
    assert [[score.total for score in scores] for scores in scored.scores] == [[1.0, 2.0], [3.0]]
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    assert 0 <= scored.seconds < 30


def test_submit_equals_score_group_and_keeps_its_order(make_group):
    rewards = build(length=(0.5, length), bad=(0.0, broken))
    steps = [[make_group("x" * i), make_group("y", "z" * i)] for i in range(20)]
    scores = [rewards.submit(step) for step in steps]
    scores = [future.result().scores for future in scores]
    assert scores == [[score_group(rewards, group) for group in step] for step in steps]
    totals = [[[score.total for score in group] for group in step] for step in scores]
    assert totals == [[[0.5 * i], [0.5, 0.5 * i]] for i in range(20)]


def test_rewards_that_have_scored_can_be_copied_and_pickled(make_group):
    rewards = build(length=(1.0, length))
    rewards.submit([make_group("a")]).result()
    for twin in (copy.deepcopy(rewards), pickle.loads(pickle.dumps(rewards))):
        assert twin.submit([make_group("abc")]).result().scores[0][0].total == 3.0


@pytest.mark.parametrize(
    ("components", "message"),
    [
        ({}, "reward.components holds {}: expected at least one named component."),
        (None, "reward.components holds None"),
        ({"a": None}, "reward.components.a holds None: expected the two keys weight and fn."),
        ({"a": {"fn": length}}, "expected the two keys weight and fn"),
        ({"a": {"fn": length, "weight": 1, "wieght": 2}}, "expected the two keys weight and fn"),
        ({"a": {"fn": "length", "weight": 1}}, "reward.components.a.fn holds 'length': expected a function"),
        ({"a": {"fn": length, "weight": "1"}}, "reward.components.a.weight holds '1': expected a finite number."),
        ({"a": {"fn": length, "weight": True}}, "reward.components.a.weight holds True"),
        ({"a": {"fn": length, "weight": math.nan}}, "reward.components.a.weight holds nan"),
        ({"a": {"fn": len, "weight": 1}}, "reward.components.a.fn cannot be called as fn(sample, completion)"),
    ],
)  # fmt: skip
def test_an_unusable_config_is_one_sentence(components, message):
    with pytest.raises(ConfigError) as error:
        Rewards(components)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_option_is_a_config_error_not_a_failure_of_every_completion():
    from grit_lightning.rewards.answer import answer_bleu

    with pytest.raises(ConfigError, match="'size'"):
        build(bleu=(1.0, answer_bleu))


def test_all_futures_of_a_step_are_requested_before_any_is_awaited(make_group):
    asked = []

    def later(sample, completion):
        asked.append(Future())
        if len(asked) == 4:  # the answers come once all was asked, the last first
            for number, future in reversed(list(enumerate(asked))):
                future.set_result(float(number))
        return asked[-1]

    scored = build(later=(1.0, later)).submit([make_group("a", "b"), make_group("c", "d")]).result(timeout=30)
    assert [[score.total for score in scores] for scores in scored.scores] == [[0.0, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("settle", "error"),
    [
        (lambda future: future.set_result(None), None),
        (lambda future: future.set_result(math.nan), "ValueError: it returned nan, expected a finite number or None."),
        (lambda future: future.set_exception(RuntimeError("gone")), "RuntimeError: gone."),
        (lambda future: future.cancel(), "CancelledError: ."),
    ],
)
def test_the_result_of_a_future_is_checked_like_a_plain_value(make_sample, make_completion, settle, error):
    future = Future()
    settle(future)
    score = build(later=(1.0, lambda sample, completion: future)).score(make_sample(), make_completion("x"))
    assert score.components == {"later": None}
    assert score.total is None
    expected = {} if error is None else {"later": f"Reward later could not score sample cats/1: {error}"}
    assert score.errors == expected
