"""The Jacobian of the cases: one row a case, its gradient over the shared parameters (eq. 3)."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 2**15  # Columns of the rows that are held in float64 at once.
STRIP = 3  # Rows whose products are formed together: few, since half of the square need not be formed at all.
LANES = 4  # Parts of a block whose products are formed side by side: a thin product alone would keep one core busy.
MODERATE = 8.0  # Weights this unequal lose no more than a digit to cancellation.


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


def gramian(rows: Tensor, block: int = BLOCK) -> Tensor:
    """(k, k) float64 on the CPU: the inner products of the rows.

    Products are formed and summed in float64, a block of columns at a time, so that neither half precision nor
    TF32 nor a long sum can change a sign, and so that no second copy of the rows exists.
    """
    k = len(rows)
    total = torch.zeros(k, k, dtype=torch.float64, device=rows.device)
    exact = torch.empty(k, min(block, rows.shape[1]), dtype=torch.float64, device=rows.device)
    for columns in rows.split(block, dim=1):
        part = exact[:, : columns.shape[1]].copy_(columns)
        lanes = LANES if columns.shape[1] % LANES == 0 else 1
        side_by_side = part.view(k, lanes, columns.shape[1] // lanes).transpose(0, 1)
        for low in range(0, k, STRIP):
            # Up to the diagonal: the rest is the same.
            high = min(low + STRIP, k)
            total[low:high, :high] += torch.bmm(side_by_side[:, low:high], side_by_side[:, :high].mT).sum(dim=0)
    return torch.tril(total).add_(torch.tril(total, -1).T).cpu()


def weighted_sum(rows: Tensor, weights: Tensor, block: int = BLOCK) -> Tensor:
    """(P,): sum_j w_j g_j, in the dtype of the rows.

    Unequal weights mean that long rows cancel, which their own precision would spoil: the sum is then formed in
    float64.
    """
    sizes = weights.abs()
    if rows.dtype == torch.float32 and sizes.max() <= MODERATE * sizes.min():
        return weights.to(rows.device, rows.dtype) @ rows
    total = torch.empty(rows.shape[1], dtype=rows.dtype, device=rows.device)
    exact = torch.empty(len(rows), min(block, rows.shape[1]), dtype=torch.float64, device=rows.device)
    weights = weights.to(rows.device, torch.float64)
    for columns, part in zip(rows.split(block, dim=1), total.split(block), strict=True):
        part.copy_(weights @ exact[:, : columns.shape[1]].copy_(columns))
    return total
