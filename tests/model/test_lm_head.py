"""Tests of the fused LM head and softmax against a loop over tokens and against plain autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from grit_lightning.model.lm_head import HeadOptions, plain_weight, token_logprobs

T, D, V = 7, 5, 11
BANNED = torch.tensor([0, 4])
TEMPERATURE = 0.7
TOLERANCES = {torch.float64: {"rtol": 1e-12, "atol": 1e-13}, torch.float32: {"rtol": 2e-5, "atol": 2e-6}}


def options(chunk: int = 3, *, entropy: bool = True, temperature: float = TEMPERATURE) -> HeadOptions:
    return HeadOptions(BANNED, temperature, chunk, entropy)


def drawn(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return random hidden states and weights, allowed targets, and an upstream gradient of the log-probabilities."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, upstream = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in ((T, D), (V, D), (T,))
    )
    return hidden.requires_grad_(), weight.requires_grad_(), torch.tensor([1, 2, 10, 1, 3, 9, 5]), upstream


def by_loop(hidden: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compute log-probabilities and entropies token by token over the allowed tokens."""
    allowed = [token for token in range(V) if token not in BANNED]
    logprobs, entropies = [], []
    for state, token in zip(hidden, target.tolist(), strict=True):
        scores = torch.stack([(state * weight[other]).sum() / TEMPERATURE for other in allowed])
        normalizer = scores.exp().sum().log()
        logprobs.append(scores[allowed.index(token)] - normalizer)
        entropies.append(-sum((score - normalizer).exp() * (score - normalizer) for score in scores))
    return torch.stack(logprobs), torch.stack(entropies)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("chunk", [1, 3, T, 100])
def test_values_and_gradients_equal_a_loop(dtype: torch.dtype, chunk: int) -> None:
    hidden, weight, target, upstream = drawn(dtype)
    logprobs, entropy = token_logprobs(hidden, weight, target, options(chunk))
    assert logprobs.dtype == dtype
    assert not entropy.requires_grad
    (logprobs * upstream).sum().backward()
    other_hidden, other_weight, *_ = drawn()
    expected, expected_entropy = by_loop(other_hidden, other_weight, target)
    (expected * upstream.double()).sum().backward()
    for ours, theirs in (
        (logprobs, expected), (entropy, expected_entropy),
        (hidden.grad, other_hidden.grad), (weight.grad, other_weight.grad),
    ):  # fmt: skip
        torch.testing.assert_close(ours.double(), theirs, **TOLERANCES[dtype])


def test_the_gradient_equals_finite_differences() -> None:
    hidden, weight, target, _ = drawn()
    function = lambda h, w: token_logprobs(h, w, target, options(entropy=False))[0]  # noqa: E731
    assert torch.autograd.gradcheck(function, (hidden, weight))


def test_one_chunk_equals_log_softmax_bit_by_bit() -> None:
    hidden, weight, target, _ = drawn(torch.float32)
    scores = (hidden @ weight.t() / TEMPERATURE).index_fill(1, BANNED, -math.inf)
    expected = scores.log_softmax(1).gather(1, target[:, None])[:, 0]
    assert torch.equal(token_logprobs(hidden, weight, target, options(T))[0], expected)


def test_the_logprob_of_a_nearly_certain_token_keeps_its_precision() -> None:
    # Of a token that is all but certain, log π is tiny; taken as a difference of large scores it would be rounded off.
    hidden, weight = torch.tensor([[64.0]]), torch.tensor([[0.0], [1.0], [0.875]])
    logprobs, _ = token_logprobs(hidden, weight, torch.tensor([1]), HeadOptions(BANNED[:0], 1.0, 1, False))
    assert logprobs.item() == pytest.approx(-math.log1p(math.exp(-8.0)), rel=1e-3)


def test_entropy_is_none_unless_requested() -> None:
    hidden, weight, target, _ = drawn()
    assert token_logprobs(hidden, weight, target, options(entropy=False))[1] is None


def test_a_banned_token_has_probability_zero_and_no_gradient() -> None:
    hidden, weight, target, _ = drawn()
    target[2] = BANNED[1]
    logprobs, _ = token_logprobs(hidden, weight, target, options())
    assert logprobs[2] == -math.inf
    logprobs.where(torch.arange(T) != 2, 0.0).sum().backward()
    assert hidden.grad.isfinite().all()
    assert weight.grad.isfinite().all()
    assert (hidden.grad[2] == 0).all()
    assert (weight.grad[BANNED] == 0).all()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_frozen_tensors_get_no_gradient(frozen: str) -> None:
    hidden, weight, target, upstream = drawn()
    (token_logprobs(hidden, weight, target, options())[0] * upstream).sum().backward()
    expected = {"hidden": weight.grad, "weight": hidden.grad}[frozen]
    other_hidden, other_weight, *_ = drawn()
    (other_hidden if frozen == "hidden" else other_weight).requires_grad_(False)
    (token_logprobs(other_hidden, other_weight, target, options())[0] * upstream).sum().backward()
    assert (other_hidden if frozen == "hidden" else other_weight).grad is None
    torch.testing.assert_close((other_weight if frozen == "hidden" else other_hidden).grad, expected)


class Model(nn.Module):
    """An embedding, a layer and a head, which may share the embedding's weights."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer, self.head = nn.Embedding(V, D), nn.Linear(D, D), nn.Linear(D, V, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self.double()

    def logprobs(self, ids: Tensor, target: Tensor, *, plain: bool) -> Tensor:
        hidden = self.layer(self.embedding(ids)).tanh()
        if not plain:
            return token_logprobs(hidden, self.head.weight, target, options())[0]
        scores = (self.head(hidden) / TEMPERATURE).index_fill(1, BANNED, -math.inf)
        return -cross_entropy(scores, target, reduction="none")


PASSES = [([1, 2, 3], [3, 5, 6]), ([2, 2, 0, 9], [1, 2, 3, 5]), ([7], [8])]


def gradients(model: Model, *, plain: bool) -> dict[str, Tensor]:
    """Return the gradients summed over all passes, as in a step with several micro-batches."""
    for number, (ids, target) in enumerate(PASSES, start=1):
        (model.logprobs(torch.tensor(ids), torch.tensor(target), plain=plain).sum() * number).backward()
    return {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_of_several_passes_add_up_as_in_plain_autograd(tied: bool) -> None:
    ours, theirs = (gradients(Model(tied=tied), plain=plain) for plain in (False, True))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-12, atol=1e-13, msg=lambda m, n=name: f"{n}: {m}")


def test_a_second_pass_adds_to_the_existing_gradient_in_place() -> None:
    model = Model(tied=False)
    gradients(model, plain=False)
    place, before = model.head.weight.grad.data_ptr(), model.head.weight.grad.clone()
    gradients(model, plain=False)
    assert model.head.weight.grad.data_ptr() == place
    torch.testing.assert_close(model.head.weight.grad, 2 * before)


def test_a_gradient_that_is_a_view_stays_one() -> None:
    # As in the buckets of DDP, whose reduction reads the bucket.
    model = Model(tied=False)
    bucket = torch.ones(V * D, dtype=torch.float64)
    model.head.weight.grad = bucket.view(V, D)
    alone = gradients(Model(tied=False), plain=False)["head.weight"]
    gradients(model, plain=False)
    assert model.head.weight.grad.data_ptr() == bucket.data_ptr()
    torch.testing.assert_close(bucket.view(V, D), alone + 1)


@pytest.mark.parametrize("tied", [True, False])
def test_gradient_hooks_are_called_once_per_pass_with_the_sum(tied: bool) -> None:
    # DDP and FSDP reduce a gradient when it is accumulated.
    model, seen = Model(tied=tied), []
    model.head.weight.register_post_accumulate_grad_hook(lambda value: seen.append(value.grad.clone()))
    gradients(model, plain=False)
    assert len(seen) == len(PASSES)
    torch.testing.assert_close(
        seen[-1], gradients(Model(tied=tied), plain=True)["embedding.weight" if tied else "head.weight"]
    )


def test_gradients_have_the_dtype_of_the_weights_under_autocast() -> None:
    hidden, weight, target, upstream = drawn(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, _ = token_logprobs(hidden, weight, target, options())
    operands = hidden.bfloat16().float(), weight.bfloat16().float()  # their product is not rounded
    scores = (linear(*operands) / TEMPERATURE).index_fill(1, BANNED, -math.inf)
    expected = scores.log_softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-6)
    theirs = torch.autograd.grad((expected * upstream).sum(), (hidden, weight))
    for _ in range(2):  # the second adds to the first
        (logprobs * upstream).sum().backward(retain_graph=True)
    for value, other in zip((hidden, weight), theirs, strict=True):
        assert value.grad.dtype == torch.float32
        torch.testing.assert_close(value.grad, 2 * other, rtol=2e-2, atol=2e-2)


def test_only_a_plain_linear_head_without_bias_has_a_plain_weight() -> None:
    class Other(nn.Linear):
        """A subclass of ``nn.Linear``, such as an adapted or quantized head."""

    plain = nn.Linear(2, 3, bias=False)
    assert plain_weight(plain) is plain.weight
    assert plain_weight(nn.Linear(2, 3)) is None
    assert plain_weight(Other(2, 3, bias=False)) is None
