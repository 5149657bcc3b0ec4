"""Tests of the judge and BLEU rewards, by hand."""

import math
from concurrent.futures import Future
from dataclasses import replace

import pytest

from grit_lightning.judge.exact import ExactMatch
from grit_lightning.rewards.answer import answer_bleu, answer_match


class Recorder:
    def __init__(self, score):
        self.score, self.calls = score, []

    def __call__(self, question, reference, answer):
        self.calls.append((question, reference, answer))
        return self.score


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [(0.0, 0.0, 0.0), (1e-9, 0.0, 1.0), (0.3, 0.0, 1.0), (1.0, 0.0, 1.0), (0.5, 0.5, 0.0), (0.3, None, 0.3), (1, 0, 1)],
)
def test_training_takes_1_above_the_threshold_and_evaluation_the_raw_score(
    make_sample, make_completion, score, threshold, expected
):
    value = answer_match(
        make_sample(), make_completion("<answer>2</answer>"), judge=Recorder(score), threshold=threshold
    )
    assert value == expected


@pytest.mark.parametrize("text", ["", "2", "2</answer>", "<answer></answer>", "<answer> \n</answer>", "<answer>"])
def test_no_answer_scores_0_without_asking(make_sample, make_completion, text):
    judge = Recorder(1.0)
    assert answer_match(make_sample(), make_completion(text), judge=judge, threshold=0.0) == 0.0
    assert judge.calls == []


def test_defect_3_the_judge_gets_the_question_alone(make_sample, make_completion):
    judge = Recorder(1.0)
    text = "<think> a b </think> <rethink> c </rethink> <answer> two cats </answer>"
    answer_match(make_sample(answer="2"), make_completion(text), judge=judge, threshold=0.0)
    assert judge.calls == [("How many cats are there?", "2", "two cats")]


@pytest.mark.parametrize("threshold", [0.0, None])
def test_defect_4_a_failed_judge_call_is_unscored_not_0(make_sample, make_completion, threshold):
    completion = make_completion("<answer>2</answer>")
    assert answer_match(make_sample(), completion, judge=Recorder(None), threshold=threshold) is None
    # nan > 0 is False: it must not become 0 on the way to Rewards, which refuses it.
    assert math.isnan(answer_match(make_sample(), completion, judge=Recorder(math.nan), threshold=threshold))


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [("2", "Two.", 1.0), ("yes", " Yes", 1.0), ("hot dog", "a hot dog", 1.0), ("2", "3", 0.0), ("2", "2 cats", 0.0)],
)
def test_with_the_exact_judge_answer_match_is_1_for_equal_answers_only(
    make_sample, make_completion, reference, answer, expected
):
    completion = make_completion(f"<answer>{answer}</answer>")
    assert answer_match(make_sample(reference), completion, judge=ExactMatch(), threshold=0.0) == expected


@pytest.mark.parametrize(
    ("reference", "text", "bleu"),
    [
        ("two", "<answer>two</answer>", 1.0),
        ("two", "<answer>two", 1.0),
        ("Two!", "<answer> two. </answer>", 1.0),
        ("hot dog", "<answer>HOT-DOG</answer>", 1.0),
        ("two", "<answer>three</answer>", 0.0),
        ("two", "<answer></answer>", 0.0),
        ("two", "two", 0.0),
        ("2", "<answer>two</answer>", 0.0),  # words as written: only the judge knows numbers
        ("two cats", "<answer>two dogs</answer>", 1 / 2),
        ("two", "<answer>two two two</answer>", 1 / 3),  # clipped: the reference has one
        ("a b c d", "<answer>a b</answer>", math.exp(1 - 4 / 2)),  # short: brevity penalty
        ("a b c d", "<answer>a x</answer>", math.exp(1 - 4 / 2) / 2),
        ("a b", "<answer>a b c d</answer>", 1 / 2),  # long: precision alone
    ],
)
def test_bleu_by_hand(make_sample, make_completion, reference, text, bleu):
    assert answer_bleu(make_sample(reference), make_completion(text), size=0.1) == pytest.approx(0.1 * bleu, abs=1e-15)


def test_defect_1_an_exact_one_word_answer_gets_full_bleu(make_sample, make_completion):
    # With the closing tag kept, "two answer" would be two words of which one is right: 0.05.
    completion = make_completion("<think>x</think> <answer>two</answer>")
    assert answer_bleu(make_sample("two"), completion, size=0.1) == pytest.approx(0.1, abs=1e-15)


class Later:
    """An asynchronous judge whose futures the test completes."""

    def __init__(self):
        self.asked = []

    def __call__(self, question, reference, answer):
        raise AssertionError("it would be waited for")

    def ask(self, question, reference, answer):
        self.asked.append(Future())
        return self.asked[-1]


@pytest.mark.parametrize(
    ("score", "threshold", "expected"), [(0.3, 0.0, 1.0), (0.0, 0.0, 0.0), (0.3, None, 0.3), (None, 0.0, None)]
)
def test_with_an_asynchronous_judge_answer_match_returns_a_future(
    make_sample, make_completion, score, threshold, expected
):
    judge = Later()
    completion = make_completion("<answer>2</answer>")
    value = answer_match(make_sample(), completion, judge=judge, threshold=threshold)
    assert not value.done()
    judge.asked[0].set_result(score)
    assert value.result(timeout=5) == expected
    assert answer_match(make_sample(), make_completion("<answer> "), judge=judge, threshold=threshold) == 0.0
    assert len(judge.asked) == 1


def test_the_letter_of_an_option_is_its_text_and_the_judge_sees_the_options(make_sample, make_completion):
    sample = replace(make_sample("blue car"), question="Which?", options=("red", "blue car"))
    asked = []

    def judge(question, reference, answer):
        asked.append((question, reference, answer))
        return ExactMatch()(question, reference, answer)

    right = [
        answer_match(sample, make_completion(f"<answer> {text} </answer>"), judge=judge, threshold=0)
        for text in ("B", "(b)", "blue car", "A", "red")
    ]
    assert right == [1, 1, 1, 0, 0]
    assert asked[0] == ("Which?\n(A) red\n(B) blue car", "blue car", "blue car")
