"""Case losses to gradient rows, and rows to their Gramian."""

from collections.abc import Sequence

import torch
from torch import Tensor


def case_rows(losses: Sequence[Tensor], shared: Sequence[Tensor]) -> Tensor:
    """(k, P): the gradient of each loss over the shared parameters, flattened in their order (eq. 3).

    A parameter that a loss does not reach is zero in its row. Rows have the widest dtype among the parameters.
    The graph of the losses is kept, and no `.grad` is touched.
    """
    dtype = shared[0].dtype
    for parameter in shared:
        dtype = torch.promote_types(dtype, parameter.dtype)
    ends = torch.tensor([parameter.numel() for parameter in shared]).cumsum(0).tolist()
    rows = torch.zeros(len(losses), ends[-1], dtype=dtype, device=shared[0].device)
    for row, loss in zip(rows, losses, strict=True):
        # One loss at a time: a case reaches the branches of its own modalities only, and pays for no others.
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        for end, gradient in zip(ends, gradients, strict=True):
            if gradient is not None:
                row[end - gradient.numel() : end] = gradient.flatten()
    return rows


def gramian(rows: Tensor, block: int = 2**17) -> Tensor:
    """(k, k) float64 on the CPU: the inner products of the rows.

    Products are formed and summed in float64, a block of columns at a time, so that neither half precision nor
    TF32 nor a long sum can change a sign, and so that no second copy of the rows exists.
    """
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for columns in rows.split(block, dim=1):
        exact = columns.to(torch.float64)
        total += exact @ exact.T
    return total.cpu()
