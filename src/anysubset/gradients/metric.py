"""The metric of Adam on the shared parameters, in which GMD may measure conflict."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from anysubset.errors import InputError


class AdamMetric:
    """Inner products <a, b> = sum_p D_p a_p b_p with D = 1 / (sqrt(v) + eps), the step size of Adam for each parameter.

    v is the running mean square of the gradient, corrected for its bias, as Adam divides by it (Kingma and Ba, "Adam: A
    Method for Stochastic Optimization", 2015); with `amsgrad` the largest one so far. It is read from the state of the
    optimizer in every step. D is 1 for parameters that the optimizer has not updated yet. Learning rates of parameter
    groups are not part of D.

    Args:
        optimizer: trains the shared parameters.

    Raises:
        InputError: unless the optimizer is Adam or AdamW.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            raise InputError(
                "The metric needs the mean squares of the gradients that Adam and AdamW keep; the optimizer is "
                f"{type(optimizer).__name__}: train with one of these, or leave the metric out."
            )
        self.optimizer = optimizer

    def scales(self, parameters: Sequence[Tensor], local: Callable[[Tensor], Tensor] = Tensor.detach) -> Tensor | None:
        """(P,) sqrt(D) in the order of the parameters, on their device; None if D is 1 for all.

        Inner products of rows in this metric are Euclidean inner products of the rows times these scales.

        Args:
            parameters: leaves that the optimizer trains.
            local: gives the part of a tensor on this process, for sharded parameters.

        Raises:
            InputError: if the optimizer does not train one of the parameters.
        """
        groups = {id(one): group for group in self.optimizer.param_groups for one in group["params"]}
        if any(id(parameter) not in groups for parameter in parameters):
            raise InputError(
                "The optimizer of the metric does not train all shared parameters: make it for all parameters of the "
                "model, and make GMD with this optimizer."
            )
        if not any(is_updated(self.optimizer.state.get(parameter, {})) for parameter in parameters):
            return None
        return torch.cat([self.scale(parameter, groups[id(parameter)], local) for parameter in parameters])

    def scale(self, parameter: Tensor, group: dict[str, Any], local: Callable[[Tensor], Tensor]) -> Tensor:
        """sqrt(D) of one parameter, flattened, in float32 or wider."""
        state = self.optimizer.state.get(parameter, {})
        if not is_updated(state):
            return torch.ones_like(local(parameter), dtype=torch.float32).flatten()
        square = local(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
        square = square.to(torch.promote_types(square.dtype, torch.float32))
        bias = 1 - float(group["betas"][1]) ** float(state["step"])
        divisor: Tensor = (square / bias).sqrt() + group["eps"]
        return divisor.rsqrt().flatten()


def is_updated(state: dict[str, Any]) -> bool:
    """Whether the state of a parameter is that after a step of the optimizer."""
    return bool(state) and float(state["step"]) > 0
