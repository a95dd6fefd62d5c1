"""The Jacobian of the cases: one row a case, its gradient over the shared parameters (eq. 3)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 2**16  # Columns of the rows that are worked on at once.
LANE = 2**9  # Columns of a block whose products make one sum; the lanes of a block are done side by side.
STRIP = 4  # Rows whose products are formed together: few, since half of the square need not be formed at all.
SQUARES = (1e-20, 1e30)  # Rows whose squared length is between these lose nothing to the range of float32.
MODERATE = 8.0  # Coefficients this unequal lose no more than a digit to cancellation.


def case_rows(losses: Sequence[Tensor], shared: Sequence[Tensor], columns: slice = slice(None)) -> Tensor:
    """(k, P), or some columns of it: the gradient of each loss, flattened in the order of the parameters.

    A parameter that a loss does not reach is zero in its row. Rows have the widest dtype among the parameters.
    The graph of the losses is kept, and no `.grad` is touched. Of the parameters outside the columns nothing is
    computed.
    """
    start, stop, _ = columns.indices(sum(parameter.numel() for parameter in shared))
    rows = torch.zeros(len(losses), stop - start, dtype=widest(shared), device=shared[0].device)
    parts = [
        (parameter, max(first, start) - first, min(last, stop) - first, max(first, start) - start)
        for parameter, first, last in spans(shared)
        if first < stop and last > start
    ]
    for row, loss in zip(rows, losses, strict=True):
        # One loss at a time: a case reaches the branches of its own modalities only, and pays for no others.
        wanted = [parameter for parameter, *_ in parts]
        gradients = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
        for (_, low, high, place), gradient in zip(parts, gradients, strict=True):
            if gradient is not None:
                row[place : place + high - low] = gradient.flatten()[low:high]
    return rows


def spans(parameters: Sequence[Tensor]) -> Iterator[tuple[Tensor, int, int]]:
    """Each parameter with its first column and the one after its last."""
    last = 0
    for parameter in parameters:
        first, last = last, last + parameter.numel()
        yield parameter, first, last


def widest(parameters: Sequence[Tensor]) -> torch.dtype:
    """The dtype that holds every parameter's."""
    dtype = parameters[0].dtype
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype


def gramian(rows: Tensor, block: int = BLOCK, total: Callable[[Tensor], Tensor] = lambda part: part) -> Tensor:
    """(k, k) float64 on the CPU: the inner products of the rows.

    None has another sign than in float64: neither half precision nor TF32 nor a long sum can make or hide a conflict.
    On the CPU short sums are formed in float32, which takes half the time, and added up in float64. Where a cosine is
    nearer to zero than the errors of that, or numbers leave the range of float32, everything is done in float64.
    No more than a block of the rows is copied at any time.

    Args:
        rows: (k, P).
        block: columns that are worked on at once.
        total: where other processes have other columns of the same rows: from the products over these columns, those
            over all of them.
    """
    if rows.device.type != "cpu" or rows.dtype == torch.float64:
        return total(products(rows, torch.float64, block))
    last = rows.shape[1] // block * block if block % LANE == 0 and multiplies_in_float32() else 0
    many, few = rows[:, :last], products(rows[:, last:], torch.float64, block)
    found = total(products(many, torch.float32, block) + few)
    # Asked of the total, which all processes have: they go on together or return together.
    return found if certain(found) else total(products(many, torch.float64, block) + few)


def products(rows: Tensor, dtype: torch.dtype, block: int = BLOCK) -> Tensor:
    """(k, k) float64 on the CPU: the inner products, summed in a dtype over lanes, and in float64 over all lanes."""
    k, columns = rows.shape
    total = torch.zeros(k, k, dtype=torch.float64, device=rows.device)
    held = torch.empty(k, 0 if rows.dtype == dtype else min(block, columns), dtype=dtype, device=rows.device)
    for part in rows.split(block, dim=1):
        width = part.shape[1]
        if rows.dtype != dtype:
            part = held[:, :width].copy_(part)
        lanes = part.unflatten(1, (-1, LANE) if width % LANE == 0 else (1, width)).transpose(0, 1)
        for low in range(0, k, STRIP):
            # Up to the diagonal: the rest is the same.
            high = min(low + STRIP, k)
            sums = torch.bmm(lanes[:, low:high], lanes[:, :high].mT)
            total[low:high, :high] += sums.sum(dim=0, dtype=torch.float64)
    return torch.tril(total).add_(torch.tril(total, -1).T).cpu()


def certain(found: Tensor) -> bool:
    """Whether inner products that were summed in float32 have the signs, and the squares the range, that they should.

    n products and their sum are off by n 2^-24 |a| |b| at most (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2002, section 3.1), and with n = LANE all lanes together by no more, by Cauchy and Schwarz.
    """
    squares = found.diagonal()
    if not bool(((squares > SQUARES[0]) & (squares < SQUARES[1])).all()):  # Nor NaN.
        return False
    lengths = squares.sqrt()
    return bool((found.abs() > 2 * LANE * 2**-24 * lengths[:, None] * lengths).all())


def multiplies_in_float32() -> bool:
    """Whether PyTorch was not told to multiply float32 matrices on the CPU in fewer digits."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # Since 2.9; says what was set in the older way, too.
    return (matmul.fp32_precision if matmul else torch.get_float32_matmul_precision()) in ("none", "ieee", "highest")


def weighted_sum(rows: Tensor, coefficients: Tensor, block: int = BLOCK) -> Tensor:
    """(P,): sum_j w_j g_j, in the dtype of the rows.

    Unequal coefficients mean that long rows cancel, which their own precision would spoil: the sum is then formed in
    float64.
    """
    sizes = coefficients.abs()
    if rows.dtype == torch.float32 and sizes.max() <= MODERATE * sizes.min():
        return coefficients.to(rows.device, rows.dtype) @ rows
    total = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device)
    exact = torch.empty(len(rows), min(block, rows.shape[1]), dtype=torch.float64, device=rows.device)
    coefficients = coefficients.to(rows.device, torch.float64)
    for columns, part in zip(rows.split(block, dim=1), total.split(block), strict=True):
        part.copy_(coefficients @ exact[:, : columns.shape[1]].copy_(columns))
    return total
