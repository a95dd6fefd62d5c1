"""Gradient-guided Modality Decoupling for any model and any training loop.

    gmd = GMD(model.backbone.parameters())
    step = gmd.backward({"t1": loss_1, "t1+flair": loss_2})    # like loss.backward()
    step.weights, step.cosines, step.norms                     # labelled by case

Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality Robustness", equations (3) to (9).
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anysubset.errors import unknown
from anysubset.gradients.projection import Rule, sequential
from anysubset.gradients.rows import case_rows, gramian


class NonFiniteGradientError(ArithmeticError):
    """A case's loss, or its gradient over the shared parameters, holds inf or NaN; no `.grad` was touched."""


@dataclass(frozen=True, eq=False)
class Decoupling:
    """What one step of decoupling saw and decided.

    cases: the names of the k losses, in the order of the rows of `products`.
    products: (k, k) float64, the Gramian over the shared parameters.
    decided: (k,) float64, the weights w of the sum: the update direction is sum_j w_j g_j.
    """

    cases: tuple[Hashable, ...]
    products: Tensor
    decided: Tensor

    @property
    def weights(self) -> dict[Hashable, float]:
        """The weight of each case in the sum of the projected gradients, whatever the reduction."""
        return dict(zip(self.cases, self.decided.tolist(), strict=True))

    @property
    def norms(self) -> dict[Hashable, float]:
        """The length of each case's gradient over the shared parameters."""
        return dict(zip(self.cases, self.products.diagonal().sqrt().tolist(), strict=True))

    @property
    def cosine_matrix(self) -> Tensor:
        """(k, k) float64: eq. (5); 0 where a gradient has no length."""
        lengths = self.products.diagonal().sqrt()
        scale = lengths[:, None] * lengths[None, :]
        return torch.where(scale > 0, self.products / scale.where(scale > 0, torch.ones(())), self.products)

    @property
    def cosines(self) -> dict[tuple[Hashable, Hashable], float]:
        """Eq. (5) for each pair of different cases, in both orders; negative means conflict."""
        values = self.cosine_matrix.tolist()
        return {
            (first, second): values[i][j]
            for i, first in enumerate(self.cases)
            for j, second in enumerate(self.cases)
            if i != j
        }


class GMD:
    """Fills `.grad` like `loss.backward()`, with the conflicts between the cases removed.

    Args:
        shared: the parameters on which conflict is measured: those that the modalities share.
        rule: Gramian -> weights; see `anysubset.gradients.projection`.
        reduction: "mean" divides the decoupled sum by the number of cases, "sum" does not.
        on_nonfinite: what to do when a case's gradient holds inf or NaN: "raise" names the cases, "propagate"
            lets NaN reach every `.grad`, so that a loss scaler skips the step.
        summed: parameters that receive the sum whatever the reduction. Only for parity with the code released with
            the paper, which averages what all cases share and sums the rest.
        generator: draws the orders of projection; by default an own one that starts from 0. Its state is what to
            save (`generator.get_state()`) for a run to be resumed exactly.
        callback: called with the `Decoupling` of every step.

    The weights act on the whole loss: parameters that are not shared receive the gradient of the same weighted sum.
    """

    def __init__(
        self,
        shared: Iterable[Tensor],
        *,
        rule: Rule = sequential,
        reduction: str = "mean",
        on_nonfinite: str = "raise",
        summed: Iterable[Tensor] = (),
        generator: torch.Generator | None = None,
        callback: Callable[[Decoupling], None] | None = None,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise unknown("reduction", reduction, ["mean", "sum"])
        if on_nonfinite not in ("raise", "propagate"):
            raise unknown("on_nonfinite", on_nonfinite, ["raise", "propagate"])
        # A parameter that is listed twice counts once.
        self.shared = [parameter for parameter in dict.fromkeys(shared) if parameter.requires_grad]
        if not self.shared:
            raise ValueError("GMD needs at least one shared parameter that requires a gradient.")
        self.rule = rule
        self.reduction = reduction
        self.on_nonfinite = on_nonfinite
        self.summed = list(summed)
        self.generator = generator or torch.Generator().manual_seed(0)
        self.callback = callback

    def backward(self, losses: Mapping[Hashable, Tensor]) -> Decoupling:
        """Add the decoupled gradient to `.grad`, of shared and other parameters alike.

        A parameter that no case reaches keeps its `.grad` as it was. The graph of the losses is freed.

        Args:
            losses: one scalar a case, in float32 or wider: a weight may be too large for half precision.

        Raises:
            NonFiniteGradientError: if a case's gradient holds inf or NaN and `on_nonfinite` is "raise".
        """
        for case, loss in losses.items():
            if loss.numel() != 1 or not loss.requires_grad:
                raise ValueError(
                    f"The loss of case {case!r} must be one number with a graph; it has shape "
                    f"{tuple(loss.shape)} and requires_grad={loss.requires_grad}."
                )
        if not losses:
            raise ValueError("There is no case to decouple: losses is empty.")
        products = gramian(case_rows(list(losses.values()), self.shared))
        broken = [
            case
            for (case, loss), square in zip(losses.items(), products.diagonal(), strict=True)
            if not (square.isfinite() and loss.isfinite())
        ]
        if broken and self.on_nonfinite == "raise":
            names = ", ".join(str(case) for case in broken)
            raise NonFiniteGradientError(f"The loss or the gradient of these cases is inf or NaN: {names}.")
        weights = self.rule(products, self.generator)
        if broken:
            weights = torch.full_like(weights, torch.nan)
        self.combine(list(losses.values()), weights)
        step = Decoupling(tuple(losses), products, weights)
        if self.callback is not None:
            self.callback(step)
        return step

    def combine(self, losses: list[Tensor], weights: Tensor) -> None:
        """One backward pass of the weighted losses, with autograd's own dtypes and accumulation."""
        count = len(losses) if self.reduction == "mean" else 1
        scales = [torch.full_like(loss, weight / count) for loss, weight in zip(losses, weights.tolist(), strict=True)]
        before = [parameter.grad for parameter in self.summed]
        for parameter in self.summed:
            parameter.grad = None
        try:
            torch.autograd.backward(losses, scales)
        finally:
            for parameter, earlier in zip(self.summed, before, strict=True):
                fresh = parameter.grad
                parameter.grad = earlier
                if fresh is not None:
                    parameter.grad = fresh * count if earlier is None else earlier + fresh * count
