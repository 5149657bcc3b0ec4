"""Tests of the shipped reward configs, composed and instantiated as the command line does."""

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig

from grit_lightning.errors import ConfigError
from support.scoring import score_group

GOOD = (
    '<think> I see {"bbox_2d": [1, 1, 9, 9]} and {"bbox_2d": [20, 1, 29, 9]} here </think>'
    " <rethink> so two of them </rethink> <answer> 2 </answer>"
)


def test_grit_gives_a_perfect_completion_the_sum_of_the_maxima(compose, make_sample, make_completion):
    rewards = instantiate(compose("grit").reward)
    score = rewards.score(make_sample("2"), make_completion(GOOD, range(60)))
    assert score.errors == {}
    assert {name: score.components[name] for name, weight in rewards.weights.items() if weight} == pytest.approx(
        {
            "answer_match": 1.0,
            "answer_bleu": 0.1,
            "answer_format": 0.5,
            "think_rethink": 0.5,
            "grounded_region": 1.5,
            "repetition": 0.5,
        }
    )
    assert score.total == pytest.approx(4.1)  # unweighted
    # Metrics: both boxes valid; this sample has no reference boxes, which leaves the total.
    assert score.components["box_valid"] == 1.0
    assert score.components["box_iou"] is None


def test_grit_gives_the_empty_completion_0(compose, make_sample, make_completion):
    score = instantiate(compose("grit").reward).score(make_sample("2"), make_completion(""))
    assert score.total == 0.0
    assert score.errors == {}


def test_no_omegaconf_object_reaches_a_component(compose):
    def bound(value):
        if isinstance(value, (DictConfig, ListConfig)):
            return True
        return any(map(bound, value)) if isinstance(value, list) else False

    rewards = instantiate(compose("grit").reward)
    assert not any(bound(value) for fn in rewards._fns.values() for value in fn.keywords.values())
    assert rewards._fns["grounded_region"].keywords["counting_datasets"] == ["tallyqa"]


def test_accuracy_is_the_judge_alone(compose, make_sample, make_completion):
    rewards = instantiate(compose("accuracy").reward)
    assert rewards.score(make_sample("2"), make_completion("<answer>two</answer>")).total == 1.0
    assert rewards.score(make_sample("2"), make_completion("<answer>three</answer>")).total == 0.0
    assert rewards.weights == {"answer_match": 1.0, "answer_score": 0.0}


def test_digits_is_the_share_of_digits(compose, make_sample, make_completion):
    rewards = instantiate(compose("digits").reward)
    assert rewards.score(make_sample(), make_completion("12ab")).total == 0.5
    assert rewards.names == ("digit_share",)


def test_a_weight_is_changed_by_one_override(compose, make_sample, make_completion):
    rewards = instantiate(compose("grit", "reward.components.grounded_region.weight=2").reward)
    score = rewards.score(make_sample("2"), make_completion(GOOD, range(60)))
    assert score.total == pytest.approx(4.1 + 1.5)


def test_a_component_is_removed_by_one_override(compose):
    assert "repetition" not in instantiate(compose("grit", "~reward.components.repetition").reward).names


def test_a_users_own_reward_is_one_function_and_one_line(compose, make_sample, make_completion, tmp_path, monkeypatch):
    (tmp_path / "my_reward_module.py").write_text(
        "def mine(sample, completion, *, per_word=1.0):\n    return per_word * len(completion.text.split())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    override = "+reward.components.mine={weight: 0.5, fn: {_target_: my_reward_module.mine, _partial_: true}}"
    score = instantiate(compose("accuracy", override).reward).score(make_sample("2"), make_completion("a b c"))
    assert score.components == {"answer_match": 0.0, "answer_score": 0.0, "mine": 3.0}
    assert score.total == 1.5

    with_option = override.replace("_partial_: true", "_partial_: true, per_word: 2")
    score = instantiate(compose("accuracy", with_option).reward).score(make_sample("2"), make_completion("a b c"))
    assert score.total == 3.0


def test_a_component_without_its_option_fails_before_training(compose):
    with pytest.raises(Exception, match="answer_bleu") as error:
        instantiate(compose("grit", "~reward.components.answer_bleu.fn.size").reward)
    assert isinstance(error.value.__cause__, ConfigError)


def test_composed_rewards_score_on_the_background_thread_too(compose, make_group):
    rewards = instantiate(compose("grit").reward)
    group = make_group(GOOD, "")
    scores = rewards.submit([group]).result(timeout=30).scores
    assert scores == [score_group(rewards, group)]
    assert [score.total for score in scores[0]] == pytest.approx([4.1, 0.0])


def test_a_users_exception_keeps_its_name_through_hydra(compose, make_sample, make_completion, tmp_path, monkeypatch):
    (tmp_path / "my_broken_module.py").write_text("def mine(sample, completion):\n    raise KeyError('lost')\n")
    monkeypatch.syspath_prepend(tmp_path)
    override = "+reward.components.mine={weight: 0.5, fn: {_target_: my_broken_module.mine, _partial_: true}}"
    score = instantiate(compose("accuracy", override).reward).score(make_sample("2"), make_completion("a b c"))
    assert score.errors == {"mine": "Reward mine could not score sample cats/1: KeyError: 'lost'."}
    assert score.total is None
