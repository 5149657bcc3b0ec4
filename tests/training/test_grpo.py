"""Tests of a whole GRPO step: its update against a loop, and options that must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lightning as L
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from grit_lightning.app import config
from grit_lightning.data.stream import Batch
from grit_lightning.errors import CheckpointError, StaleEngineError
from grit_lightning.model.packing import pack, plan_rows
from grit_lightning.model.reference import Reference
from grit_lightning.rollout.engine import BuiltIn
from grit_lightning.training.grpo import GRPOModule
from grit_lightning.types import Completion, Group, StepOutput

LIMIT = 16
TEMPERATURE = 0.8
# Plain gradient descent with rate 1: the change of the weights is the gradient.
GRADIENT = (
    "optimizer=sgd", "optimizer.lr=1.0", "scheduler=constant", "module.max_grad_norm=1e9", "reward=digits",
    "rollout.num_generations=3", f"rollout.max_new_tokens={LIMIT}", "data.prompts_per_step=3", "rollout.stop=q",
    f"rollout.temperature={TEMPERATURE}",
)  # fmt: skip


class Recorder(L.Callback):
    """Records the weights before training, and the output and logged metrics of each step."""

    def __init__(self) -> None:
        self.outputs: list[StepOutput] = []
        self.metrics: list[dict[str, float]] = []
        self.before: dict[str, Tensor] = {}

    def on_train_start(self, trainer: L.Trainer, module: Any) -> None:
        self.before = weights(module)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.outputs.append(outputs["output"])
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})


class Run:
    """A run that writes no files: the module, its weights before and after, and the recorded steps."""

    def __init__(self, cfg: Any, steps: int = 1, batches: Callable[[Batch], Batch] = lambda batch: batch) -> None:
        torch.manual_seed(0)
        values = config.check(cfg)
        self.module: GRPOModule = instantiate(values["module"])
        data = instantiate(values["data"])
        data.attach(self.module.backbone.encode)
        self.record = Recorder()
        self.trainer = L.Trainer(
            max_steps=steps, accelerator="cpu", precision=values["trainer"]["precision"], callbacks=[self.record],
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        stream = data.train_dataloader()
        data.train_dataloader = lambda: map(batches, stream)
        self.trainer.fit(self.module, data)
        self.before, self.after = self.record.before, weights(self.module)

    @property
    def change(self) -> dict[str, Tensor]:
        return {name: self.after[name] - value for name, value in self.before.items()}


@pytest.fixture(autouse=True)
def _quiet(recwarn: Any) -> None:
    import warnings

    warnings.filterwarnings("ignore", message="(?s).*(eval mode|many workers|litlogger).*")


def weights(module: GRPOModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.policy.model.named_parameters()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert max(value.abs().max() for value in first.values()) > 100 * atol  # there is something to compare
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def completion_logprobs(model: Any, backbone: Any, group: Any, completion: Any) -> Tensor:
    prompt, tokens = group.prompt, torch.tensor(completion.token_ids)
    ids = torch.cat([prompt.input_ids_S, tokens])[None]
    is_image = (ids == backbone.config.image_token_id).int()
    logits = model(input_ids=ids, mm_token_type_ids=is_image, **prompt.vision).logits[0] / TEMPERATURE
    logits[:, list(backbone.banned_token_ids)] = -torch.inf
    return logits.log_softmax(-1)[prompt.num_tokens - 1 : -1].gather(1, tokens[:, None])[:, 0]


def loop_update(model: Any, run: Run, iterations: int = 1, rate: float = 1.0) -> None:
    """Apply the published update of the first step to a model with the initial weights, one completion at a time."""
    options, backbone, output = run.module.objective, run.module.backbone, run.record.outputs[0]
    pairs = [(group, completion) for group in output.groups for completion in group.completions]
    flat = [score.total for scores in output.scores for score in scores]
    rewards = [math.nan if value is None else value for value in flat]
    advantages = []
    for start in range(0, len(rewards), 3):
        scored = torch.tensor([r for r in rewards[start : start + 3] if not math.isnan(r)])
        std = scored.std() if len(scored) > 1 else torch.zeros(())
        std = torch.tensor(1 - 1e-4) if options.advantage_scale == "none" else std
        advantages += [0.0 if math.isnan(r) else (r - scored.mean()) / (std + 1e-4) for r in rewards[start : start + 3]]
    kept = [
        not math.isnan(rewards[i]) and not (options.mask_truncated and completion.finish == "length")
        for i, (_, completion) in enumerate(pairs)
    ]
    with torch.no_grad():
        first = [completion_logprobs(model, backbone, *pair) for pair in pairs]
    for _ in range(iterations):
        loss = torch.zeros(())
        for i in (i for i, keep in enumerate(kept) if keep):
            logprobs = completion_logprobs(model, backbone, *pairs[i])
            ratio = (logprobs - first[i]).exp()
            term = torch.minimum(
                ratio * advantages[i], ratio.clamp(1 - options.clip_low, 1 + options.clip_high) * advantages[i]
            )
            per_token = -(term - options.beta * (logprobs - first[i]))  # the reference is the model before the step; k1
            if options.normalization == "grpo":
                loss = loss + per_token.mean() / sum(kept)
            elif options.normalization == "dapo":
                loss = loss + per_token.sum() / sum(len(pairs[j][1].token_ids) for j in range(len(kept)) if kept[j])
            else:
                loss = loss + per_token.sum() / (sum(kept) * LIMIT)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= rate * parameter.grad


@pytest.mark.parametrize(
    "options",
    [
        ("objective.kl=k1", "objective.beta=0.5"),
        ("objective=dr_grpo",),
        ("objective=dapo",),
        ("objective.kl=k1", "objective.beta=0.1", "objective.iterations=2", "objective.clip_high=0.001"),
    ],
    ids=["grpo_k1", "dr_grpo", "dapo_mask_truncated", "two_iterations_clipped"],
)  # fmt: skip
def test_update_equals_a_loop_over_completions(compose_config, options: tuple[str, ...]) -> None:
    iterations = 2 if "objective.iterations=2" in options else 1
    rate = 0.2 if iterations == 2 else 1.0
    run = Run(compose_config(*GRADIENT, *options, "module.max_tokens_per_pass=400", f"optimizer.lr={rate}"))
    assert run.trainer.global_step == 1
    finishes = {completion.finish for group in run.record.outputs[0].groups for completion in group.completions}
    assert finishes >= {"stop", "length"}  # completions of different lengths, some truncated
    model = run.module.backbone.load_model()
    loop_update(model, run, iterations, rate)
    expected = {name: parameter.detach() - run.before[name] for name, parameter in model.named_parameters()}
    assert_same(expected, run.change, atol=2e-5 if iterations == 2 else 2e-6)


def test_micro_batches_do_not_change_the_gradient(compose_config) -> None:
    at_once = Run(compose_config(*GRADIENT, "module.max_tokens_per_pass=100000"))
    split = Run(compose_config(*GRADIENT, "module.max_tokens_per_pass=1", "module.logits_chunk=3"))
    assert_same(at_once.change, split.change)


def test_prompt_order_does_not_change_the_gradient(compose_config) -> None:
    in_order = Run(compose_config(*GRADIENT))
    turned = Run(compose_config(*GRADIENT), batches=lambda batch: Batch(batch.step, batch.prompts[::-1]))
    assert_same(in_order.change, turned.change)


def test_gradient_checkpointing_does_not_change_the_gradient(compose_config) -> None:
    plain = Run(compose_config(*GRADIENT))
    recomputed = Run(compose_config(*GRADIENT, "model.gradient_checkpointing=true"))
    assert recomputed.module.policy.model.is_gradient_checkpointing
    assert_same(plain.change, recomputed.change)


def test_skipping_zero_variance_groups_keeps_the_gradient_without_kl(compose_config) -> None:
    options = (*GRADIENT, "objective.beta=0.0", "rollout.num_generations=2", "rollout.max_new_tokens=4")
    all_groups = Run(compose_config(*options))
    skipping = Run(compose_config(*options, "objective.skip_zero_variance=true"))
    assert 0 < skipping.record.metrics[0]["reward/zero_variance"] < 1
    assert_same(all_groups.change, skipping.change)


def test_a_step_of_zero_variance_groups_changes_no_weight(compose_config) -> None:
    options = ("objective.beta=0.0", "objective.skip_zero_variance=true", "reward=accuracy")
    run = Run(compose_config(*GRADIENT, *options), steps=2)
    assert run.trainer.global_step == 2
    assert run.record.metrics[0]["reward/zero_variance"] == 1
    assert all((value == 0).all() for value in run.change.values())


def sometimes_broken(sample: Any, completion: Any) -> float:
    """A user's reward that fails for some completions."""
    if len(completion.token_ids) % 2:
        raise ValueError("odd")
    return len(completion.token_ids) / 10


def test_unscored_completions_do_not_enter_the_gradient(compose_config) -> None:
    # Built by name in the config, as a user's own reward would be.
    fn = f"{{_target_: {__name__}.sometimes_broken, _partial_: true}}"
    run = Run(compose_config(*GRADIENT, "objective.kl=k1", f"+reward.components.mine={{weight: 1.0, fn: {fn}}}"))
    odd = [len(c.token_ids) % 2 for group in run.record.outputs[0].groups for c in group.completions]
    assert 0 < sum(odd) < len(odd)
    assert run.record.metrics[0]["reward/unscored"] == pytest.approx(sum(odd) / len(odd))
    model = run.module.backbone.load_model()
    loop_update(model, run)
    expected = {name: parameter.detach() - run.before[name] for name, parameter in model.named_parameters()}
    assert_same(expected, run.change, atol=2e-6)


def test_the_reference_is_frozen_and_not_saved(compose_config) -> None:
    run = Run(compose_config(*GRADIENT, "objective.beta=0.1"), steps=2)
    reference = run.module.reference
    assert not reference.training
    assert not any(p.requires_grad for p in reference.parameters())
    for name, value in reference.policy.model.named_parameters():
        assert torch.equal(value, run.before[name])
    assert not any(key.startswith("reference") for key in run.module.state_dict())
    assert run.record.metrics[0]["policy/kl"] == pytest.approx(0, abs=1e-6)
    assert run.record.metrics[1]["policy/kl"] > 1e-4


@pytest.mark.slow
def test_an_offloaded_reference_gives_the_same_step(compose_config, monkeypatch) -> None:
    moved: list[Any] = []
    original = Reference.on
    monkeypatch.setattr(Reference, "on", lambda *given: (moved.append(given), original(*given))[1])
    run = Run(compose_config(*GRADIENT, "objective.beta=0.1", "module.offload_reference=true"), steps=2)
    assert run.module.reference.offloaded
    assert moved == [(run.module.reference, torch.device("cpu"))] * 2
    assert_same(Run(compose_config(*GRADIENT, "objective.beta=0.1"), steps=2).change, run.change)


def test_without_kl_there_is_no_reference(compose_config) -> None:
    run = Run(compose_config(*GRADIENT, "objective.beta=0.0"))
    assert run.module.reference is None
    assert "policy/kl" not in run.record.metrics[0]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_another_does_not(compose_config) -> None:
    def texts(run: Run) -> list[str]:
        return [c.text for output in run.record.outputs for group in output.groups for c in group.completions]

    runs = [Run(compose_config(*GRADIENT, f"seed={seed}"), steps=2) for seed in (0, 0, 1)]
    assert texts(runs[0]) == texts(runs[1])
    assert texts(runs[0]) != texts(runs[2])
    assert all(torch.equal(value, runs[1].after[name]) for name, value in runs[0].after.items())


@pytest.mark.slow
def test_bf16_compute_keeps_float32_weights(compose_config) -> None:
    run = Run(compose_config(*GRADIENT, "trainer.precision=bf16-mixed"))
    exact = Run(compose_config(*GRADIENT))
    assert {value.dtype for value in run.after.values()} == {torch.float32}
    norms = [math.sqrt(sum(v.square().sum() for v in r.change.values())) for r in (run, exact)]
    assert 0.1 * norms[1] < norms[0] < 10 * norms[1]
    assert any(not torch.equal(value, exact.change[name]) for name, value in run.change.items()), "computed in bf16"


def test_a_checkpoint_of_another_model_is_refused_by_name(compose_config) -> None:
    run = Run(compose_config(*GRADIENT))
    state = run.module.state_dict()
    state.pop("policy.model.model.language_model.norm.weight")
    message = r"1 weight names differ, e.g. policy.model.model.language_model.norm.weight"
    with pytest.raises(CheckpointError, match=message):
        run.module.on_load_checkpoint({"state_dict": state})


def test_logged_means_are_those_of_the_rollouts(compose_config) -> None:
    run = Run(compose_config(*GRADIENT))
    output, metrics = run.record.outputs[0], run.record.metrics[0]
    totals = torch.tensor([score.total for scores in output.scores for score in scores])
    lengths = torch.tensor([float(len(c.token_ids)) for group in output.groups for c in group.completions])
    truncated = [c.finish == "length" for group in output.groups for c in group.completions]
    assert metrics["reward/total/mean"] == pytest.approx(totals.mean().item())
    assert metrics["reward/digit_share/std"] == pytest.approx(totals.std().item())
    assert metrics["rollout/length/mean"] == pytest.approx(lengths.mean().item())
    assert metrics["rollout/truncated"] == pytest.approx(sum(truncated) / len(truncated))
    gradient_norm = math.sqrt(sum(value.square().sum() for value in run.change.values()))
    assert metrics["policy/grad_norm"] == pytest.approx(gradient_norm, rel=1e-3)


# ---- another engine than the policy ----


class Reporting(BuiltIn):
    """The built-in engine, which also reports log-probabilities as another one would: off by ``offset``."""

    def __init__(self, module: GRPOModule, offset: Callable[[Any], float], max_drift: float) -> None:
        self.policy, self.offset, self.max_drift = lambda: module._policy, offset, max_drift

    def complete(self, model: Any, backbone: Any, prompts: Any, keys: Any, **options: Any) -> list[Completion]:
        found = super().complete(model, backbone, prompts, keys, **options)
        owners = [prompt for prompt in prompts for _ in range(len(keys) // len(prompts))]
        groups = [Group(i, prompt, (one,)) for i, (prompt, one) in enumerate(zip(owners, found, strict=True))]
        packed = pack(plan_rows(groups, 10**6, [False] * len(groups))[0], groups)
        logprobs = torch.zeros(sum(len(one.token_ids) for one in found))
        logprobs[packed.token_T] = self.policy()(packed).logprobs_T
        parts = logprobs.split([len(one.token_ids) for one in found])
        return [
            replace(one, logprobs=tuple((part + self.offset(one)).tolist()))
            for one, part in zip(found, parts, strict=True)
        ]


def run_with_engine(
    compose_config: Any, monkeypatch: Any, offset: Callable[[Any], float], *more: str, **options: Any
) -> Run:
    plain = GRPOModule.__init__

    def with_engine(self: GRPOModule, **given: Any) -> None:
        plain(self, **given)
        engine = Reporting(self, offset, options.get("max_drift", 10.0))
        self.sampler = replace(self.sampler, engine=engine)

    monkeypatch.setattr(GRPOModule, "__init__", with_engine)
    return Run(compose_config(*GRADIENT, "objective.kl=k1", *more))


def test_an_engine_with_the_policys_probabilities_changes_nothing(compose_config, monkeypatch) -> None:
    plain = Run(compose_config(*GRADIENT, "objective.kl=k1"))
    other = run_with_engine(compose_config, monkeypatch, lambda _: 0.0)
    assert_same(plain.change, other.change)
    assert other.record.metrics[0]["rollout/engine_ratio_max"] == pytest.approx(1, abs=1e-4)
    assert "rollout/engine_drift" not in plain.record.metrics[0]


def test_completions_of_another_engine_are_weighted_by_the_bounded_ratio(compose_config, monkeypatch) -> None:
    # Offsets per completion: ratio e^0.5 where the engine was less certain, 1 elsewhere; bounded at 1.2.
    def offset(completion: Any) -> float:
        return -0.5 if sum(completion.token_ids) % 2 else 0.0

    run = run_with_engine(compose_config, monkeypatch, offset, "objective.engine_cap=1.2", "objective.beta=0.0")
    model = run.module.backbone.load_model()
    output = run.record.outputs[0]
    loss = torch.zeros(())
    for group, advantages in zip(output.groups, output.advantages_P_G, strict=True):
        for completion, advantage in zip(group.completions, advantages, strict=True):
            logprobs = completion_logprobs(model, run.module.backbone, group, completion)
            weight = min(math.exp(-offset(completion)), 1.2)
            loss = loss - weight * advantage * (logprobs - logprobs.detach()).exp().mean() / 9
    loss.backward()
    wanted = {name: -value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert_same(wanted, run.change)
    assert 0 < run.record.metrics[0]["rollout/engine_bounded"] < 1


def test_an_engine_with_other_weights_ends_the_run_before_its_update(compose_config, monkeypatch) -> None:
    changed = []
    monkeypatch.setattr(GRPOModule, "_take_update", lambda *_: changed.append(1))
    with pytest.raises(
        StaleEngineError, match=r"step 1: the engine's log-probabilities differ from the policy's by 0.3"
    ):
        run_with_engine(compose_config, monkeypatch, lambda _: 0.3, max_drift=0.1)
    assert not changed
