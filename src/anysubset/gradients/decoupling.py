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

from anysubset.errors import unknown
from anysubset.gradients.branches import Batched, Branch, Recomputed
from anysubset.gradients.jacobian import Jacobian, Stored
from anysubset.gradients.projection import Rule, coefficients_of, sequential_copies


class NonFiniteGradientError(ArithmeticError):
    """A case's loss, or its gradient over the shared parameters, holds inf or NaN; no `.grad` was touched."""


@dataclass(frozen=True, eq=False)
class Decoupling:
    """What one step of decoupling saw and decided.

    cases: the names of the k losses, in the order of the rows of `gramian`.
    gramian: (k, k) float64, the Gramian over the shared parameters.
    decided: (k,) float64, the coefficients w of the sum: the update direction is sum_j w_j g_j.
    copies: (k, k) float64, row i the projected gradient of case i in coordinates of the original ones; None where the
        rule gives coefficients alone.
    """

    cases: tuple[Hashable, ...]
    gramian: Tensor
    coefficient_vector: Tensor
    copies: Tensor | None = None

    @property
    def coefficients(self) -> dict[Hashable, float]:
        """The coefficient of each case in the sum of the projected gradients, whatever the reduction."""
        return dict(zip(self.cases, self.coefficient_vector.tolist(), strict=True))

    @property
    def norms(self) -> dict[Hashable, float]:
        """The length of each case's gradient over the shared parameters."""
        return dict(zip(self.cases, self.gramian.diagonal().sqrt().tolist(), strict=True))

    @property
    def cosine_matrix(self) -> Tensor:
        """(k, k) float64: eq. (5); 0 where a gradient has no length."""
        lengths = self.gramian.diagonal().sqrt()
        scale = lengths[:, None] * lengths[None, :]
        return torch.where(scale > 0, self.gramian / scale.where(scale > 0, torch.ones(())), self.gramian)

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

    @property
    def conflicting(self) -> float | None:
        """The share of the pairs of cases that conflict: eq. (5) is negative. None where there is no pair."""
        k = len(self.cases)
        return int((self.gramian < 0).sum()) / (k * (k - 1)) if k > 1 else None


class GMD:
    """Fills `.grad` like `loss.backward()`, with the conflicts between the cases removed.

    Args:
        shared: the parameters on which conflict is measured: those that the modalities share.
        rule: Gramian -> coefficients, or copies, which show what became of each gradient; by default the copies of
            `sequential`. See `anysubset.gradients.projection`.
        reduction: "mean" divides the decoupled sum by the number of cases, "sum" does not.
        on_nonfinite: what to do when a case's gradient holds inf or NaN: "raise" names the cases, "propagate"
            lets NaN reach every `.grad`, so that a loss scaler skips the step, "skip" touches no `.grad` and counts
            the step in `skipped`. What is seen are losses and gradients over the shared parameters.
        private: all other parameters, or simply all; needed where there are several processes, and only there.
        jacobian: how the rows are kept, made from the shared parameters; by default all of them (`Stored`), over all
            processes where there are several (`Replicated`, or `Sharded` under FSDP2).
        summed: parameters that receive the sum whatever the reduction. Only for parity with the code released with
            the paper, which averages what all cases share and sums the rest.
        generator: draws the orders of projection; by default an own one that starts from 0. Its state is what to
            save (`generator.get_state()`) for a run to be resumed exactly.
        callback: called with the `Decoupling` of every step.

    The coefficients act on the whole loss: parameters that are not shared receive the gradient of the same weighted
    sum. Whatever lies below the shared part, such as an encoder of one modality, is differentiated once a step.
    """

    def __init__(
        self,
        shared: Iterable[Tensor],
        *,
        rule: Rule = sequential_copies,
        reduction: str = "mean",
        on_nonfinite: str = "raise",
        private: Iterable[Tensor] = (),
        jacobian: Callable[[Sequence[Tensor]], Jacobian] | None = None,
        summed: Iterable[Tensor] = (),
        generator: torch.Generator | None = None,
        callback: Callable[[Decoupling], None] | None = None,
    ) -> None:
        if reduction not in ("mean", "sum"):
            raise unknown("reduction", reduction, ["mean", "sum"])
        if on_nonfinite not in ("raise", "propagate", "skip"):
            raise unknown("on_nonfinite", on_nonfinite, ["raise", "propagate", "skip"])
        # A parameter that is listed twice counts once.
        self.shared = [parameter for parameter in dict.fromkeys(shared) if parameter.requires_grad]
        if not self.shared:
            raise ValueError("GMD needs at least one shared parameter that requires a gradient.")
        if not all(parameter.is_leaf for parameter in self.shared):
            raise ValueError("Shared parameters must be leaves: `.grad` of what was computed is not kept.")
        self.rule = rule
        self.reduction = reduction
        self.on_nonfinite = on_nonfinite
        self.jacobian = fitting(self.shared, private) if jacobian is None else jacobian(self.shared)
        self.summed = list(summed)
        self.generator = generator or torch.Generator().manual_seed(0)
        self.callback = callback
        self.branches: list[Branch] = []
        self.skipped = 0

    # ------------------------------------------------------------------------------------------------- a step

    def backward(self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float] | None = None) -> Decoupling:
        """Add the decoupled gradient to `.grad`, of shared and other parameters alike.

        A parameter that no case reaches keeps its `.grad` as it was. The graph of the losses is freed.

        Args:
            losses: one scalar a case, in float32 or wider: a coefficient may be too large for half precision.
            counts: see `accumulate`.

        Raises:
            NonFiniteGradientError: if a case's gradient holds inf or NaN and `on_nonfinite` is "raise".
        """
        self.accumulate(losses, counts)
        return self.decouple()

    def accumulate(self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float] | None = None) -> None:
        """Take the gradients of one micro-batch, and fill nothing: `decouple` does, when all have been seen.

        This is not the same as `backward` for each micro-batch, which would measure conflict on parts of a batch.

        Args:
            losses: one scalar a case, a mean over the eligible samples of the micro-batch.
            counts: how many samples those were, 0 for a case of this step that has none here; 1 each by default.
                Such a case needs no loss, but under FSDP2: there it needs that of an empty batch, so that all
                processes run the same branches.
        """
        branches, self.branches = self.branches, []
        counts = dict.fromkeys(losses, 1) if counts is None else counts
        check(losses, counts)
        try:
            self.jacobian.add(losses, counts, branches)
        except BaseException:
            self.jacobian.clear()
            raise

    def decouple(self) -> Decoupling:
        """Project what was accumulated, and add the result to `.grad`.

        Raises:
            NonFiniteGradientError: as `backward` does.
        """
        try:
            return self.decoupled(self.jacobian)
        finally:
            self.jacobian.clear()

    def look(self) -> Decoupling:
        """What `decouple` would decide of what was accumulated, which is forgotten; no `.grad` is touched.

        An order is drawn as in a step; no callback is called.
        """
        try:
            return self.decide(self.jacobian)[0]
        finally:
            self.jacobian.clear()

    def decoupled(self, jacobian: Jacobian) -> Decoupling:
        """Gramian, coefficients, `.grad`."""
        step, seen, broken = self.decide(jacobian)
        if broken and self.on_nonfinite == "skip":
            self.skipped += 1
        else:
            divided = len(seen) if self.reduction == "mean" else 1
            counts = torch.tensor([jacobian.counts[place] for place in seen], dtype=torch.float64)
            shares = [0.0] * len(jacobian.cases)
            for place, share in zip(seen, (step.coefficient_vector / counts).tolist(), strict=True):
                shares[place] = share / divided
            self.fill(shares, divided)
        if self.callback is not None:
            self.callback(step)
        return step

    def decide(self, jacobian: Jacobian) -> tuple[Decoupling, list[int], bool]:
        """Gramian and coefficients; the places of the cases that have samples; whether one of them is not finite."""
        gramian, values = jacobian.gramian(), jacobian.values.cpu()
        seen = [place for place, count in enumerate(jacobian.counts) if count > 0]
        if not seen:
            raise ValueError("There is no case to decouple: losses is empty.")
        counts = torch.tensor([jacobian.counts[place] for place in seen], dtype=torch.float64)
        gramian = gramian[seen][:, seen] / counts[:, None] / counts
        cases = tuple(jacobian.cases[place] for place in seen)
        broken = [
            case
            for case, square, value in zip(cases, gramian.diagonal(), values[seen], strict=True)
            if not (square.isfinite() and value.isfinite())
        ]
        if broken and self.on_nonfinite == "raise":
            names = ", ".join(str(case) for case in broken)
            raise NonFiniteGradientError(f"The loss or the gradient of these cases is inf or NaN: {names}.")
        found = self.rule(gramian, self.generator)
        if broken:
            found = torch.full_like(found, torch.nan)
        copies = found if found.ndim == 2 else None
        return (
            Decoupling(cases, gramian, found if copies is None else coefficients_of(copies), copies),
            seen,
            bool(broken),
        )

    def fill(self, shares: list[float], divided: int) -> None:
        """`.grad`; of summed parameters without the division that the shares hold."""
        before = [parameter.grad for parameter in self.summed]
        for parameter in self.summed:
            parameter.grad = None
        try:
            self.jacobian.fill(shares)
        finally:
            for parameter, earlier in zip(self.summed, before, strict=True):
                fresh = parameter.grad
                parameter.grad = earlier
                if fresh is not None:
                    parameter.grad = fresh * divided if earlier is None else earlier + fresh * divided

    # -------------------------------------------------------------------------------------- branches of a model

    def batched(self, output: Tensor) -> Tensor:
        """The output of one modality's branch, to be used in its place: differentiated for all its cases at once.

        For convolutions over volumes on the CPU, slow case by case; memory grows with the cases while it runs.
        """
        return self.branch(Batched(output)) if output.requires_grad else output

    def recomputed(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`function(*arguments)`, one modality's branch, without its activations: it is computed again in `backward`.

        No more than one branch has its activations in memory at a time, for one more forward pass a step. What is
        drawn in it, such as dropout, is drawn alike both times; running statistics are updated twice. Activations of
        private parts at the beginning of a branch stay, since they are differentiated last.
        """
        return self.branch(Recomputed(function, *arguments)) if torch.is_grad_enabled() else function(*arguments)

    def branch(self, branch: Branch) -> Tensor:
        """Its output, remembered until the next `backward` or `accumulate`."""
        self.branches.append(branch)
        return branch.output


def fitting(shared: Sequence[Tensor], private: Iterable[Tensor]) -> Jacobian:
    """For one process or several, for whole parameters or sharded ones."""
    if dist.is_available() and dist.is_initialized():
        # Only here: these take long to import, and are not part of every build of torch.
        from anysubset.gradients.replicated import Replicated
        from anysubset.gradients.sharded import Sharded, is_sharded

        if any(is_sharded(parameter) for parameter in shared):
            return Sharded(shared, private)
        if dist.get_world_size() > 1:
            return Replicated(shared, private)
    return Stored(shared)


def check(losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float]) -> None:
    """Each loss is one number with a graph and has a count, and every other count is 0."""
    for case, loss in losses.items():
        if loss.numel() != 1 or not loss.requires_grad:
            raise ValueError(
                f"The loss of case {case!r} must be one number with a graph; it has shape "
                f"{tuple(loss.shape)} and requires_grad={loss.requires_grad}."
            )
        if not counts.get(case, -1) >= 0:
            raise ValueError(f"Case {case!r} has a loss, so it needs a count, 0 or more, not {counts.get(case)}.")
    for case, count in counts.items():
        if count != 0 and case not in losses:
            raise ValueError(f"Case {case!r} counts {count} samples but has no loss.")
