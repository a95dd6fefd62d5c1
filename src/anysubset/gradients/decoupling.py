"""Gradient-guided Modality Decoupling for any model and any training loop.

    gmd = GMD(model.backbone.parameters())
    step = gmd.backward({"t1": loss_1, "t1+flair": loss_2})    # like loss.backward()
    step.coefficients, step.cosines, step.norms                     # labelled by case

Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality Robustness", equations (3) to (9).
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.errors import InputError, unknown
from anysubset.gradients.branches import Batched, Branch, Detached, Recomputed
from anysubset.gradients.checks import check_losses, parameters_of, with_gradients
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.loss_weights import LossRule
from anysubset.gradients.metric import AdamMetric
from anysubset.gradients.projection import Rule, coefficients_of
from anysubset.gradients.rules import copies_named
from anysubset.gradients.stored import Stored


class NonFiniteGradientError(ArithmeticError):
    """A case's loss, or its gradient over the shared parameters, holds inf or NaN; `.grad` was not changed.

    cases: names of these cases.
    """

    def __init__(self, cases: Sequence[Hashable]) -> None:
        self.cases = [str(case) for case in cases]
        super().__init__(f"The loss or the gradient of these cases is inf or NaN: {', '.join(self.cases)}.")


@dataclass(frozen=True, eq=False)
class Decoupling:
    """Gramian and coefficients of one step.

    cases: the names of the k losses, in the order of the rows of `gramian`.
    gramian: (k, k) float64, inner products of the case gradients over the shared parameters, in the metric of GMD.
    coefficient_vector: (k,) float64, the coefficients c of the update: its direction is sum_j c_j g_j.
    copies: (k, k) float64, row i the projected gradient of case i in coordinates of the original gradients; None if the
        rule gives coefficients only.
    """

    cases: tuple[Hashable, ...]
    gramian: Tensor
    coefficient_vector: Tensor
    copies: Tensor | None = None

    @property
    def coefficients(self) -> dict[Hashable, float]:
        """Coefficient of each case in the sum of the projected gradients, before `reduction` divides it."""
        return dict(zip(self.cases, self.coefficient_vector.tolist(), strict=True))

    @property
    def norms(self) -> dict[Hashable, float]:
        """Euclidean norm of each case's gradient over the shared parameters."""
        return dict(zip(self.cases, self.gramian.diagonal().sqrt().tolist(), strict=True))

    @property
    def cosine_matrix(self) -> Tensor:
        """(k, k) float64: cosines of eq. (5); 0 for a gradient that is zero."""
        lengths = self.gramian.diagonal().sqrt()
        scale = lengths[:, None] * lengths[None, :]
        return torch.where(scale > 0, self.gramian / scale.where(scale > 0, torch.ones(())), self.gramian)

    @property
    def cosines(self) -> dict[tuple[Hashable, Hashable], float]:
        """Cosine of eq. (5) of each pair of different cases, in both orders; negative means conflict."""
        values = self.cosine_matrix.tolist()
        return {
            (first, second): values[i][j]
            for i, first in enumerate(self.cases)
            for j, second in enumerate(self.cases)
            if i != j
        }

    @property
    def conflicting(self) -> float | None:
        """Share of the pairs of cases that conflict (negative cosine); None for a single case."""
        k = len(self.cases)
        return int((self.gramian < 0).sum()) / (k * (k - 1)) if k > 1 else None


class GMD:
    """Fill `.grad` like `loss.backward()`, with the conflicts between the cases removed.

    The coefficients act on the whole loss: parameters that are not shared receive the gradient of the same weighted
    sum. Everything below the shared part, such as the encoder of one modality, is differentiated once per step.

    Args:
        shared: the parameters that the modalities share; conflict is measured on them. Those that are frozen in a step
            (`requires_grad` is False) are left out of it, and take part again when they are thawed.
        rule: name of a rule, such as "upgrad" (`anysubset.gradients.RULES` and `LOSS_RULES` hold them all); or a
            function from the Gramian to coefficients, or to copies, which also show the projected gradient of each
            case; or a `LossRule`, which computes coefficients from the losses. By default "sequential", the paper's
            rule. See `anysubset.gradients.projection`.
        reduction: "mean" divides the decoupled sum by the number of cases, "sum" does not.
        on_nonfinite: what to do if a loss, or its gradient over the shared parameters, holds inf or NaN: "raise" names
            the cases, "propagate" sets every `.grad` to NaN, so that a loss scaler skips the step, "skip" leaves
            `.grad` alone and counts the step in `skipped`.
        private: all other parameters, or simply all parameters; needed with several processes only.
        jacobian: class, or function of the shared parameters, that stores the rows; by default `Stored`, with several
            processes `Replicated`, or `Sharded` under FSDP2.
        summed: parameters that receive the sum even if `reduction` is "mean". Only for parity with the code released
            with the paper, which averages what all cases share and sums the rest.
        metric: the Adam or AdamW optimizer that trains the shared parameters, to measure conflict in its metric
            (`anysubset.gradients.metric`); by default the Euclidean one. The coefficients are those of the gradients
            themselves in either case; `Decoupling` holds inner products, norms and cosines in the metric.
        generator: draws the orders of projection; by default a new one with seed 0. To resume a run exactly, save its
            state (`generator.get_state()`).
        callback: called with the `Decoupling` of every step.
    """

    def __init__(
        self,
        shared: Iterable[Tensor],
        *,
        rule: str | Rule | LossRule = "sequential",
        reduction: str = "mean",
        on_nonfinite: str = "raise",
        private: Iterable[Tensor] = (),
        jacobian: Callable[[Sequence[Tensor]], Jacobian] | None = None,
        summed: Iterable[Tensor] = (),
        metric: torch.optim.Optimizer | None = None,
        generator: torch.Generator | None = None,
        callback: Callable[[Decoupling], None] | None = None,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise unknown("reduction", reduction, ["mean", "sum"])
        if on_nonfinite not in ("raise", "propagate", "skip"):
            raise unknown("on_nonfinite", on_nonfinite, ["raise", "propagate", "skip"])
        self.shared = parameters_of(shared)
        self.rule = copies_named(rule) if isinstance(rule, str) else rule
        self.reduction = reduction
        self.on_nonfinite = on_nonfinite
        self.jacobian = default_jacobian(self.shared, private) if jacobian is None else jacobian(self.shared)
        self.metric = metric
        self.summed = list(summed)
        self.generator = generator or torch.Generator().manual_seed(0)
        self.callback = callback
        self.branches: list[Branch] = []
        self.skipped = 0

    @property
    def metric(self) -> torch.optim.Optimizer | None:
        """The optimizer in whose metric conflict is measured; None for the Euclidean metric.

        Raises:
            InputError: if it is set to another optimizer than Adam or AdamW.
        """
        return None if self.jacobian.metric is None else self.jacobian.metric.optimizer

    @metric.setter
    def metric(self, optimizer: torch.optim.Optimizer | None) -> None:
        self.jacobian.metric = None if optimizer is None else AdamMetric(optimizer)

    # ------------------------------------------------------------------------------------------------- a step

    def backward(self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float] | None = None) -> Decoupling:
        """Add the decoupled gradient to `.grad` of shared and private parameters, and free the graph of the losses.

        `.grad` of a parameter that no case reaches is not changed.

        Args:
            losses: one scalar per case, in float32 or wider: a coefficient may be too large for half precision.
            counts: see `accumulate`.

        Raises:
            NonFiniteGradientError: if a case's gradient holds inf or NaN and `on_nonfinite` is "raise".
        """
        self.accumulate(losses, counts)
        return self.decouple()

    def accumulate(self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float] | None = None) -> None:
        """Compute the gradients of one micro-batch without filling `.grad`; call `decouple` after the last one.

        Calling `backward` for each micro-batch instead would measure conflict on parts of a batch.

        Args:
            losses: one scalar per case, the mean over its eligible samples of the micro-batch.
            counts: number of eligible samples by case, 0 for a case of this step without any in this micro-batch; by
                default 1 for every loss. A case with count 0 needs no loss, except under FSDP2: there it needs the loss
                of an empty batch, so that all processes run the same branches.

        Raises:
            InputError: if losses and counts do not fit, all shared parameters are frozen, or a reentrant checkpoint
                hides shared parameters. Earlier micro-batches of the step stay accumulated; after any other exception
                they are discarded.
        """
        if not isinstance(losses, Mapping):
            raise InputError(f"The losses are a mapping from case to loss, not a {type(losses).__name__}.")
        counts = dict.fromkeys(losses, 1) if counts is None else counts
        check_losses(losses, counts, self.shared)  # Before anything changes.
        try:
            with with_gradients():
                self.jacobian.add(losses, counts, self.branches)
        except InputError:
            raise  # Nothing has changed, so the branches still belong to the losses.
        except BaseException:
            self.branches = []
            raise
        self.branches = []

    def decouple(self) -> Decoupling:
        """Project the accumulated gradients, and add the result to `.grad`.

        Raises:
            NonFiniteGradientError: if a case's gradient holds inf or NaN and `on_nonfinite` is "raise".
        """
        try:
            step, indices, nonfinite = self.compute_coefficients()
            if nonfinite and self.on_nonfinite == "skip":
                self.skipped += 1
            else:
                with with_gradients():
                    self.fill(step, indices)
            if self.callback is not None:
                self.callback(step)
            return step
        finally:
            self.jacobian.clear()

    def measure(self) -> Decoupling:
        """Gramian and coefficients of the accumulated gradients, which are then discarded; `.grad` is not changed.

        Draws an order of projection as a step does, and does not call the callback.
        """
        try:
            return self.compute_coefficients()[0]
        finally:
            self.jacobian.clear()

    def compute_coefficients(self) -> tuple[Decoupling, list[int], bool]:
        """Gramian and coefficients of the cases with samples, their indices, and whether a gradient is not finite.

        Raises:
            InputError: if no case has samples or reaches a shared parameter, or the losses reach a replacement or copy
                of one.
            NonFiniteGradientError: as `decouple`.
        """
        with with_gradients():
            gramian, loss_sums = self.jacobian.gramian(), self.jacobian.loss_sums.cpu()
        indices = [index for index, count in enumerate(self.jacobian.counts) if count > 0]
        if not indices:
            raise InputError("There is no case to decouple: losses is empty, or every count is 0.")
        self.jacobian.check_reach()
        counts = torch.tensor([self.jacobian.counts[index] for index in indices], dtype=torch.float64)
        gramian = gramian[indices][:, indices] / counts[:, None] / counts
        cases = tuple(self.jacobian.cases[index] for index in indices)
        finite = (gramian.diagonal().isfinite() & loss_sums[indices].isfinite()).tolist()
        nonfinite = [case for case, is_finite in zip(cases, finite, strict=True) if not is_finite]
        if nonfinite and self.on_nonfinite == "raise":
            raise NonFiniteGradientError(nonfinite)
        if isinstance(self.rule, LossRule):
            result = self.rule.coefficients(loss_sums[indices] / counts)
        else:
            result = self.rule(gramian, self.generator)
        if nonfinite:
            result = torch.full_like(result, torch.nan)
        copies = result if result.ndim == 2 else None
        vector = result if copies is None else coefficients_of(copies)
        return Decoupling(cases, gramian, vector, copies), indices, bool(nonfinite)

    def fill(self, step: Decoupling, indices: Sequence[int]) -> None:
        """Add the decoupled gradient to `.grad`; `indices` are those of the cases of `step` in the Jacobian."""
        divisor = len(indices) if self.reduction == "mean" else 1
        counts = torch.tensor([self.jacobian.counts[index] for index in indices], dtype=torch.float64)
        # Rows are sums over samples, so their coefficients are divided by the counts, too.
        row_coefficients = [0.0] * len(self.jacobian.cases)
        for index, coefficient in zip(indices, (step.coefficient_vector / counts).tolist(), strict=True):
            row_coefficients[index] = coefficient / divisor
        before = [parameter.grad for parameter in self.summed]
        for parameter in self.summed:
            parameter.grad = None
        try:
            self.jacobian.fill(row_coefficients)
        finally:
            # Parameters in `summed` receive the sum: the division is undone.
            for parameter, earlier in zip(self.summed, before, strict=True):
                gradient = parameter.grad
                parameter.grad = earlier
                if gradient is not None:
                    parameter.grad = gradient * divisor if earlier is None else earlier + gradient * divisor

    # -------------------------------------------------------------------------------------- branches of a model

    def detached(self, output: Tensor) -> Tensor:
        """Replacement for the output of one modality's branch, which is differentiated apart from the other branches.

        The same gradients as without it, in fewer operations: autograd would sum the gradients of a case over its
        branches parameter by parameter.
        """
        return self.branch(Detached(output)) if output.requires_grad and torch.is_grad_enabled() else output

    def batched(self, output: Tensor) -> Tensor:
        """Replacement for the output of one modality's branch, which is differentiated for all its cases in one pass.

        Pays for convolutions over volumes on the CPU, which are slow case by case. During the pass, memory grows with
        the number of cases.
        """
        return self.branch(Batched(output)) if output.requires_grad and torch.is_grad_enabled() else output

    def recomputed(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """Output of one modality's branch, `function(*arguments)`, without its activations; `backward` recomputes them.

        Only one branch has its activations in memory at a time, at the price of one more forward pass per step. Random
        numbers, such as those of dropout, are the same in both passes; running statistics are updated twice.
        Activations of private parts at the beginning of a branch stay in memory, since they are differentiated last.
        """
        return self.branch(Recomputed(function, *arguments)) if torch.is_grad_enabled() else function(*arguments)

    def branch(self, branch: Branch) -> Tensor:
        """Register a branch for the next `backward` or `accumulate`, and return its output."""
        self.branches.append(branch)
        return branch.output


def default_jacobian(shared: Sequence[Tensor], private: Iterable[Tensor]) -> Jacobian:
    """`Stored` in one process; with several processes `Replicated`, or `Sharded` if the parameters are sharded."""
    if dist.is_available() and dist.is_initialized():
        # Imported here because torch.distributed is slow to import and missing in some builds of torch.
        from anysubset.gradients.replicated import Replicated
        from anysubset.gradients.sharded import Sharded, is_sharded

        if any(is_sharded(parameter) for parameter in shared):
            return Sharded(shared, private)
        if dist.get_world_size() > 1:
            return Replicated(shared, private)
    return Stored(shared)
