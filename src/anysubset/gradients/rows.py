"""Rows of the Jacobian: the gradients of the cases over the shared parameters (eq. 3), and their inner products."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 2**16  # Shorter rows are multiplied in float64 at once, since that takes no time.
COPIED = 2**22  # Numbers that are copied to another dtype at a time: 32 MB in float64, and few operations on a GPU.
LANE = 2**9  # Columns whose products are summed in float32; the lanes of a block are computed in parallel.
STRIP = 4  # Rows of the Gramian that are computed at a time; few, since only the lower triangle is needed.
SQUARES = (1e-20, 1e30)  # Squared lengths of rows within the range in which float32 neither overflows nor underflows.
MODERATE = 8.0  # Ratio of coefficients up to which at most one digit is lost to cancellation.


def case_rows(losses: Sequence[Tensor], shared: Sequence[Tensor], columns: slice = slice(None)) -> Tensor:
    """(k, P), or some columns of it: gradient of each loss, flattened in the order of the parameters.

    Columns of parameters that a loss does not reach are 0. Rows have the widest dtype of the parameters. The graph is
    retained, and `.grad` is not changed. Gradients of parameters outside `columns` are not computed.
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
        for (_, low, high, column), gradient in zip(parts, gradients, strict=True):
            if gradient is not None:
                row[column : column + high - low] = gradient.flatten()[low:high]
    return rows


def spans(parameters: Sequence[Tensor]) -> Iterator[tuple[Tensor, int, int]]:
    """Yield each parameter with its first column, and the column after its last."""
    last = 0
    for parameter in parameters:
        first, last = last, last + parameter.numel()
        yield parameter, first, last


def widest(parameters: Sequence[Tensor]) -> torch.dtype:
    """Dtype to which all dtypes of the parameters can be promoted."""
    dtype = parameters[0].dtype
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    return dtype


def gramian(
    rows: Tensor,
    block: int | None = None,
    total: Callable[[Tensor], Tensor] = lambda part: part,
    scales: Tensor | None = None,
) -> Tensor:
    """(k, k) float64 on the CPU: inner products of the rows, with the signs of a computation in float64.

    So neither half precision, TF32 nor the length of the sum can create or hide a conflict. On the CPU, short sums are
    computed in float32, which takes half the time, and added in float64. If a cosine is closer to 0 than the error
    bound of that, or numbers leave the range of float32, everything is computed in float64. At most one block of
    columns is copied at a time.

    Args:
        rows: (k, P).
        block: number of columns that are copied at a time; by default as many as `COPIED` allows.
        total: sum over the processes, if other processes have other columns of the same rows.
        scales: (P,) factors of the columns, of which the rows are multiplied block by block; none by default.
    """
    if rows.device.type != "cpu" or rows.dtype == torch.float64:
        return total(products(rows, torch.float64, block, scales))
    last = rows.shape[1] // LANE * LANE if rows.shape[1] >= BLOCK and multiplies_in_float32() else 0
    of_many, of_few = (None, None) if scales is None else (scales[:last], scales[last:])
    many, few = rows[:, :last], products(rows[:, last:], torch.float64, block, of_few)
    fast = total(products(many, torch.float32, block, of_many) + few)
    # Decided by the total, which is the same on all processes, so that all of them compute it again or none.
    return fast if signs_are_certain(fast) else total(products(many, torch.float64, block, of_many) + few)


def products(rows: Tensor, dtype: torch.dtype, block: int | None = None, scales: Tensor | None = None) -> Tensor:
    """(k, k) float64 on the CPU: inner products of the rows, with their columns multiplied by (P,) `scales` if set.

    The columns are cut into lanes of `LANE` columns; sums within a lane are in `dtype`, sums over lanes in float64.
    """
    k, columns = rows.shape
    total = torch.zeros(k, k, dtype=torch.float64, device=rows.device)
    copies = rows.dtype != dtype or scales is not None
    # Without copies, there is nothing to save by going through the columns in parts.
    block = min(block or columns_at_a_time(k), columns) if copies else columns
    copy = torch.empty(k, block if copies else 0, dtype=dtype, device=rows.device)
    for number, part in enumerate(rows.split(block, dim=1) if columns else ()):
        width = part.shape[1]
        if copies:
            part = copy[:, :width].copy_(part)
        if scales is not None:
            part *= scales[number * block : number * block + width]
        whole = width // LANE * LANE
        add_products(total, part[:, :whole].unflatten(1, (-1, LANE)).transpose(0, 1))
        add_products(total, part[:, whole:].unsqueeze(0))
    return torch.tril(total).add_(torch.tril(total, -1).T).cpu()


def columns_at_a_time(k: int) -> int:
    """Number of columns of k rows that hold about `COPIED` numbers, in whole lanes."""
    return max(1, COPIED // max(1, k) // LANE) * LANE


def add_products(total: Tensor, lanes: Tensor) -> None:
    """Add the sums over lanes of the inner products within each lane to the lower triangle of `total`.

    Args:
        total: (k, k) float64.
        lanes: (lanes, k, columns).
    """
    if not lanes.numel():
        return
    k = len(total)
    for low in range(0, k, STRIP):
        # Up to the diagonal, by symmetry.
        high = min(low + STRIP, k)
        sums = torch.bmm(lanes[:, low:high], lanes[:, :high].mT)
        total[low:high, :high] += sums.sum(dim=0, dtype=torch.float64)


def signs_are_certain(gramian: Tensor) -> bool:
    """Whether inner products that were summed in float32 (see `products`) have the signs of an exact computation.

    The sum of n products has an error of at most n 2^-24 |a| |b| (Higham, "Accuracy and Stability of Numerical
    Algorithms", 2002, section 3.1). By the Cauchy-Schwarz inequality, the errors of all lanes, of n = LANE products
    each, add up to no more than this bound. The sign of an inner product is certain if its absolute value is more than
    twice the bound, and if the squared lengths of both rows are within `SQUARES`, where float32 neither overflows nor
    loses digits.
    """
    squares = gramian.diagonal()
    if not bool(((squares > SQUARES[0]) & (squares < SQUARES[1])).all()):  # False also for NaN.
        return False
    lengths = squares.sqrt()
    return bool((gramian.abs() > 2 * LANE * 2**-24 * lengths[:, None] * lengths).all())


def multiplies_in_float32() -> bool:
    """Whether PyTorch multiplies float32 matrices on the CPU in full precision, which is its default."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)  # Since torch 2.9; reflects the older setting, too.
    return (matmul.fp32_precision if matmul else torch.get_float32_matmul_precision()) in ("none", "ieee", "highest")


def weighted_sum(rows: Tensor, coefficients: Tensor) -> Tensor:
    """(P,): sum_j c_j g_j, in the dtype of the rows.

    If the coefficients differ much, long rows cancel each other; the sum is then computed in float64.
    """
    sizes = coefficients.abs()
    if rows.dtype == torch.float32 and sizes.max() <= MODERATE * sizes.min():
        return coefficients.to(rows.device, rows.dtype) @ rows
    block = columns_at_a_time(len(rows))
    total = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device)
    exact = torch.empty(len(rows), min(block, rows.shape[1]), dtype=torch.float64, device=rows.device)
    coefficients = coefficients.to(rows.device, torch.float64)
    for columns, part in zip(rows.split(block, dim=1), total.split(block), strict=True):
        part.copy_(coefficients @ exact[:, : columns.shape[1]].copy_(columns))
    return total
