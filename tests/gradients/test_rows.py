"""Gradient rows of losses of two parameters, worked out by hand, and inner products with exact signs."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.gradients.rows import BLOCK, LANE, case_rows, gramian, products, signs_are_certain


def parameter(*values: float, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=dtype))


def exact_products(rows: Tensor) -> list[list[Fraction]]:
    vectors = [[Fraction(value) for value in row] for row in rows.tolist()]
    return [[sum(map(Fraction.__mul__, one, other), Fraction(0)) for other in vectors] for one in vectors]


# --------------------------------------------------------------------------------------------------------- rows


def test_a_row_is_zero_for_parameters_that_its_loss_does_not_reach():
    a, b = parameter(0.5, 2.0), parameter(3.0)
    # d(3 a0 - a1) = (3, -1 | 0); d(5 b) = (0, 0 | 5); d(a1 b) = (0, b | a1) = (0, 3 | 2).
    losses = [3 * a[0] - a[1], 5 * b.sum(), a[1] * b[0]]
    assert case_rows(losses, [a, b]).tolist() == [[3, -1, 0], [0, 0, 5], [0, 3, 2]]


def test_columns_follow_the_order_of_the_parameters_and_rows_that_of_the_losses():
    a, b = parameter(0.5, 2.0), parameter(3.0)
    assert case_rows([5 * b.sum(), 3 * a[0] - a[1]], [b, a]).tolist() == [[5, 0, 0], [0, 3, -1]]


def test_a_matrix_is_flattened_row_by_row():
    matrix, single = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.tensor(1.0))
    weights = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    # The gradient of sum(weights * matrix.T) is weights.T, and comes to us as a view with swapped strides.
    losses = [(weights * matrix).sum(), (weights * matrix.T).sum() + single]
    assert case_rows(losses, [matrix, single]).tolist() == [[1, 2, 3, 4, 0], [1, 3, 2, 4, 1]]


def test_a_loss_that_reaches_nothing_shared_has_a_row_of_zeros():
    shared, own = parameter(1.0, 1.0), parameter(1.0)
    assert case_rows([7 * own.sum()], [shared]).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.float32, torch.float32),
        (torch.float16, torch.bfloat16, torch.float32),
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16, torch.float16),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_rows_have_the_widest_dtype_of_the_parameters(first: torch.dtype, second: torch.dtype, expected: torch.dtype):
    a, b = parameter(1.0, dtype=first), parameter(1.0, dtype=second)
    rows = case_rows([2 * a.sum().float() + 3 * b.sum().float()], [a, b])
    assert rows.dtype == expected
    assert rows.tolist() == [[2, 3]]


def test_the_graph_is_retained_and_no_grad_is_changed():
    a, b = parameter(1.0, 4.0), parameter(3.0)
    a.grad = torch.tensor([7.0, 7.0], dtype=torch.float64)
    loss = (a * a).sum() + b.sum()
    # d = (2 a | 1) = (2, 8 | 1), twice the same.
    assert case_rows([loss, loss], [a, b]).tolist() == [[2, 8, 1], [2, 8, 1]]
    assert a.grad.tolist() == [7, 7]
    assert b.grad is None
    loss.backward()  # The graph is still there.
    assert a.grad.tolist() == [9, 15]


def test_rows_require_no_gradient():
    a = parameter(2.0)
    assert not case_rows([a.sum() ** 2], [a]).requires_grad


# ------------------------------------------------------------------------------------------------------ Gramian


def test_gramian_contains_the_inner_products():
    # (1, 2).(1, 2) = 5, (1, 2).(3, -1) = 1, (3, -1).(3, -1) = 10.
    products = gramian(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
    assert products.dtype == torch.float64
    assert products.device.type == "cpu"
    assert products.tolist() == [[5, 1], [1, 10]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gramian_keeps_a_sign_that_the_rows_own_precision_would_lose(dtype: torch.dtype):
    # 2^26 - 1 - 2^26 = -1: a conflict. float32 rounds 2^26 - 1 to 2^26, and float16 cannot hold 2^26 at all.
    rows = torch.tensor([[8192, 1, 8192], [8192, -1, -8192]], dtype=dtype)
    assert gramian(rows).tolist() == [[2**27 + 1, -1], [-1, 2**27 + 1]]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # Half precision has so few bits that no rounding is left; the others round 40 products and their sum.
    [(torch.float16, 0.0), (torch.bfloat16, 0.0), (torch.float32, 1e-13), (torch.float64, 1e-13)],
)
def test_gramian_equals_exact_arithmetic(dtype: torch.dtype, tolerance: float):
    rows = torch.randn(4, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = [[float(value) for value in line] for line in exact_products(rows)]
    assert_close(gramian(rows), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=tolerance)


def test_gramian_is_exact_for_norms_from_1e_minus_24_to_1e15():
    rows = torch.tensor([[1e-24, 0], [-1, 1], [-1e15, -1e15]], dtype=torch.float32)
    # Squares 1e-48 (zero in float32), 2 and 2e30; products -1e-24, -1e-9 and 1e15 - 1e15 = 0.
    expected = [[1e-48, -1e-24, -1e-9], [-1e-24, 2, 0], [-1e-9, 0, 2e30]]
    products = gramian(rows)
    # 1e-24 and 1e15 themselves are rounded to float32.
    assert_close(products, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("block", [1, 2, 7, 100, 101, 1000])
def test_the_block_size_does_not_change_the_gramian(block: int):
    generator = torch.Generator().manual_seed(0)
    whole = torch.randint(-9, 10, (5, 100), generator=generator).to(torch.float32)
    # Whole numbers: every sum is exact, whatever its order.
    assert torch.equal(gramian(whole, block), gramian(whole))
    real = torch.randn(5, 100, generator=generator)
    assert_close(gramian(real, block), gramian(real), rtol=0, atol=1e-13)


def test_an_incomplete_last_block_is_included():
    # 2^17 + 3 columns of (1, -2): squares n and 4 n, product -2 n.
    count = 2**17 + 3
    rows = torch.tensor([[1.0], [-2.0]]).expand(2, count)
    assert gramian(rows).tolist() == [[count, -2 * count], [-2 * count, 4 * count]]


def test_gramian_does_not_change_the_rows():
    rows = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float16)
    before = rows.clone()
    gramian(rows)
    assert torch.equal(rows, before)
    assert rows.dtype == torch.float16


# --------------------------------------------------------------------------------------- long rows, in short sums


def long_rows(dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows of three blocks and a rest, with lengths of 1e-3 to 1e3 times about 500 and cosines 0.7, 0.3 and -1/2."""
    one, other = torch.randn(2, 3 * BLOCK + 100, generator=torch.Generator().manual_seed(0))
    return torch.stack([one, 1e3 * (one + other), 1e-3 * (1.7 * other - one)]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_long_rows_are_summed_in_float32_to_its_rounding(dtype: torch.dtype):
    rows = long_rows(dtype)
    exact = products(rows, torch.float64)
    lengths = exact.diagonal().sqrt()
    fast = gramian(rows)
    assert not torch.equal(fast, exact)  # It was float32 indeed.
    assert_close(fast / lengths[:, None] / lengths, exact / lengths[:, None] / lengths, rtol=0, atol=2**-23)


def hidden_conflict() -> Tensor:
    """(2, 502): odd products beyond 2^24, which float32 rounds; two more bring the exact sum to -1."""
    one, other = torch.randint(4096, 8192, (2, 500), generator=torch.Generator().manual_seed(0))
    excess = int(one @ other) + 1
    return torch.stack(
        [
            torch.cat([one, torch.tensor([4096, 1])]),
            torch.cat([other, torch.tensor([-(excess // 4096), -(excess % 4096)])]),
        ]
    ).float()


def test_a_conflict_that_float32_sums_would_hide_is_detected():
    rows = torch.zeros(2, BLOCK)
    rows[:, :502] = hidden_conflict()
    assert products(rows, torch.float32)[0, 1] != -1
    assert gramian(rows)[0, 1] == -1


def test_a_conflict_that_shows_only_in_the_sum_of_two_processes_is_detected():
    # Each process alone is certain of the sign, but not the sum: 500 positive products, and two negative ones.
    first, second = torch.zeros(2, BLOCK), torch.zeros(2, BLOCK)
    first[:, :500], second[:, :2] = hidden_conflict().split([500, 2], dim=1)
    assert signs_are_certain(products(first, torch.float32))
    assert signs_are_certain(products(second, torch.float32))
    dtypes = iter([torch.float32, torch.float64])
    assert gramian(first, total=lambda part: part + products(second, next(dtypes)))[0, 1] == -1


def test_signs_are_certain_if_every_cosine_exceeds_the_error_bound():
    # The error of 512 products is at most 512 * 2^-24 = 2^-15; the cosine must be twice as large.
    assert LANE == 512
    assert signs_are_certain(torch.tensor([[1, 1.01 * 2**-14], [1.01 * 2**-14, 1]], dtype=torch.float64))
    assert not signs_are_certain(torch.tensor([[1, 0.99 * 2**-14], [0.99 * 2**-14, 1]], dtype=torch.float64))
    assert not signs_are_certain(torch.tensor([[4, 3.9 * 2**-14], [3.9 * 2**-14, 4]], dtype=torch.float64))


@pytest.mark.parametrize("square", [0.0, 1e-21, 1e31, torch.inf, torch.nan])
def test_lengths_out_of_the_range_of_float32_are_never_certain(square: float):
    assert not signs_are_certain(torch.tensor([[1, 0.5], [0.5, square]], dtype=torch.float64))


def test_gramian_is_exact_for_long_rows_of_any_length():
    rows = long_rows() * torch.tensor([[1e-24], [1e15], [1.0]])
    assert products(rows, torch.float32)[0, 0] == 0  # Less than float32 can hold.
    assert torch.equal(gramian(rows), products(rows, torch.float64))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_a_lower_matmul_precision_does_not_affect_the_gramian(precision: str):
    rows = long_rows()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(gramian(rows), products(rows, torch.float64))
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_nonfinite_long_rows_give_a_nonfinite_gramian(broken: float):
    rows = long_rows()
    rows[1, BLOCK + 3] = broken
    finite = gramian(rows).isfinite()
    assert finite.tolist() == [[True, False, True], [False, False, False], [True, False, True]]
