"""Tests of matrix products with float32 results."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from grit_lightning.model import products
from grit_lightning.model.products import add_product, product


class Operators(TorchDispatchMode):
    """Record the names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(str(operator))
        return operator(*args, **(kwargs or {}))


def bf16(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("batch", [(), (3,)])
def test_a_product_of_bf16_matrices_is_not_rounded_to_bf16(batch: tuple[int, ...]) -> None:
    first, second = bf16(*batch, 5, 64), bf16(*batch, 64, 7)
    exact = first.double() @ second.double()
    with torch.autocast("cpu", torch.bfloat16):
        found = product(first, second)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-5
    assert (first @ second - exact).abs().max() > 1e-3  # what rounding to bf16 costs


def test_a_sum_of_many_bf16_products_loses_nothing() -> None:
    total, rounded, exact = torch.zeros(4, 6), torch.zeros(4, 6).bfloat16(), torch.zeros(4, 6, dtype=torch.float64)
    for step in range(300):
        first, second = bf16(4, 8 + step), bf16(8 + step, 6)
        add_product(total, first, second)
        rounded += first @ second
        exact += first.double() @ second.double()
    assert (total - exact).abs().max() < 1e-5 * exact.abs().max()
    assert (rounded - exact).abs().max() > 1e-2 * exact.abs().max()


def test_wide_dtypes_keep_theirs() -> None:
    assert product(torch.ones(2, 3, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64)).dtype == torch.float64


def test_a_gpu_is_asked_for_wide_results_of_unconverted_operands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_wide_results", lambda device: True)
    with FakeTensorMode():  # runs the same operators without computing anything
        first, second = (torch.empty(shape, dtype=torch.bfloat16) for shape in ((4, 8), (8, 6)))
        total = torch.empty(4, 6)
        with Operators() as operators:
            assert product(first, second).dtype == torch.float32
            add_product(total, first, second)
    assert operators.names == ["aten.mm.dtype", "aten.addmm.dtype_out"]
