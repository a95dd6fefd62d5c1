"""Update rules: from the losses of a training step to gradients in `.grad`.

The update rule is an option of the experiment (`method.gradients`), independent of the method.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, eligible
from anysubset.errors import InputError, unknown
from anysubset.gradients import GMD, Decoupling, copies_named
from anysubset.gradients.checks import check_losses as check_case_losses
from anysubset.gradients.stored import Stored
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Method, Objective, Step
from anysubset.models import sharing
from anysubset.models.network import Tree, tree_map
from anysubset.system import processes

Losses = Mapping[str, Tensor]
Objectives = Mapping[str, Objective]
Counts = Mapping[str, int]


class Update(ABC):
    """Collects the losses of the micro-batches of a step, then fills `.grad` with the gradient of the step."""

    @abstractmethod
    def add(self, losses: Losses, objectives: Objectives, counts: Counts, totals: Counts) -> None:
        """Add the losses of one micro-batch.

        Args:
            losses: by objective, the mean over its eligible samples.
            objectives: all objectives of the step.
            counts: by objective, the number of eligible samples in this micro-batch.
            totals: by objective, the number of eligible samples in all micro-batches of all ranks; objectives without
                eligible samples have no key.
        """

    @abstractmethod
    def finish(self) -> Decoupling | None:
        """Fill `.grad` with the gradient of the whole step, the same on every rank.

        Returns coefficients, norms, cosines and Gramian of the cases if the update rule decouples them, else None.
        """

    def begin_stage(self, stage: str, optimizer: torch.optim.Optimizer) -> None:  # noqa: B027 (optional)
        """Prepare for the steps of a stage with its optimizer; by default do nothing.

        Called when the optimizer was created, or its state was loaded from a checkpoint.

        Raises:
            InputError: if the update rule needs another optimizer.
        """

    @property
    def current(self) -> "Update":
        """The update rule of the step; a rule made of several ones names the one in use."""
        return self


class Mean(Update):
    """Gradient of the mean loss over the cases plus the weighted sum of all other losses.

    Args:
        method: its parameters receive the gradients.
    """

    def __init__(self, method: Method) -> None:
        self.method = method

    def add(self, losses: Losses, objectives: Objectives, counts: Counts, totals: Counts) -> None:
        """Differentiate the losses of one micro-batch, each times its share of the eligible samples."""
        shares = {name: counts[name] / totals[name] * loss for name, loss in losses.items()}
        cases = [share for name, share in shares.items() if objectives[name].case]
        others = [objectives[name].weight * share for name, share in shares.items() if not objectives[name].case]
        number = sum(objectives[name].case for name in totals)
        terms = ([torch.stack(cases).sum() / number] if cases else []) + others
        if terms:
            torch.stack(terms).sum().backward()

    def finish(self) -> None:
        """Sum the gradients of all ranks."""
        processes.sum_gradients(self.method.parameters())


class Decoupled(Update):
    """Gradient-guided Modality Decoupling of the cases; the gradients of all other objectives are added to its result.

    Args:
        method: its parameters receive the gradients.
        generator: draws the random orders in which gradients are projected; by default a new one with seed 0.
        rule: name of the rule that removes conflicts between the gradients of the cases, or `worst`, which weighs the
            cases by their losses; `docs/engine.md` explains them.
        reduction: `mean` or `sum` of the projected gradients.
        conflict: parameters on which conflict is measured: `shared`, those that serve two or more modalities, or `all`.
        batched: whether to differentiate all cases together in the backward pass through a modality, which multiplies
            its memory by their number. By default on for volumes on the CPU, where it is faster.
        recompute: whether to keep the activations of one modality at a time only, at the cost of one more forward
            pass per step.
        floor: a gradient shorter than this share of the longest one is not projected on; 0 for the exact rule.
        metric: inner product of the gradients in which conflict is measured: `euclidean`; or `adam`, in which each
            parameter counts by its step size, 1 / (sqrt(v) + eps) with the mean square v of the optimizer that trains
            the stage (`anysubset.gradients.metric`). It needs `train.optimizer` adam or adamw.
        when: `always`; or `measured`, which decouples only while a test during training, repeated on independent
            batches, shows more conflict than noise (`anysubset.training.conflict`). A step without decoupling is one
            of `mean`.

    Raises:
        InputError: if the method has no cases or shares no parameters between modalities.
    """

    def __init__(
        self,
        method: Method,
        generator: torch.Generator | None = None,
        *,
        rule: str = "sequential",
        reduction: str = "mean",
        conflict: str = "shared",
        batched: bool | None = None,
        recompute: bool = False,
        floor: float = 1e-8,
        metric: str = "euclidean",
        when: str = "always",
    ) -> None:
        if metric not in ("euclidean", "adam"):
            raise unknown("method.metric", metric, ["euclidean", "adam"])
        if when not in ("always", "measured"):
            raise unknown("method.when", when, ["always", "measured"])
        if when == "measured" and not isinstance(method, CaseMethod):
            raise InputError(f"method.when is always for {type(method).__name__}, which takes no losses of cases.")
        if conflict not in ("shared", "all"):
            raise unknown("conflict", conflict, ["shared", "all"])
        if batched and recompute:
            raise InputError(
                "Branches are either batched or recomputed: set one of method.batched and method.recompute."
            )
        if not 0 <= floor < 1:
            raise InputError(f"method.floor is a share of the longest gradient, from 0 to below 1, not {floor}.")
        shared = method.shared_parameters()
        if not shared:
            raise InputError(
                f"{type(method).__name__} shares no parameters between the modalities, so that no case can conflict "
                "with another: set method.gradients to mean."
            )
        self.method = method
        self.batched = batched
        self.recompute = recompute
        self.metric = metric
        self.when = when
        self.on = when == "always"  # Whether the current step decouples.
        self.mean = Mean(method)
        self.gmd = GMD(
            method.parameters() if conflict == "all" else shared,
            rule=copies_named(rule, floor),
            reduction=reduction,
            private=method.parameters(),
            generator=generator,
        )
        self.added_others = False
        if isinstance(method, CaseMethod):
            method.call_encoder = self.call_encoder

    def begin_stage(self, stage: str, optimizer: torch.optim.Optimizer) -> None:
        """Measure conflict in the metric of this optimizer if `metric` is `adam`.

        Raises:
            InputError: if it is `adam` and the optimizer is not Adam or AdamW.
        """
        if self.metric == "euclidean":
            return
        if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
            raise InputError(
                f"method.metric adam needs train.optimizer adam or adamw; stage {stage!r} is trained by "
                f"{type(optimizer).__name__}."
            )
        self.gmd.metric = optimizer

    def call_encoder(self, encode: Callable[..., Tree], *arguments: Any) -> Tree:
        """Encode one modality, and set up recomputation or batching of its backward pass where it applies."""
        if not torch.is_grad_enabled() or not self.on:
            return encode(*arguments)
        if self.recompute:
            return self.gmd.recomputed(partial(self.encoded_tensor, encode), *arguments)
        features = encode(*arguments)
        if self.batches_branches():
            return tree_map(self.gmd.batched, features)
        # A method with losses of its own may use the features beside the cases.
        own = any(
            getattr(type(self.method), name) is not getattr(CaseMethod, name) for name in ("objectives", "losses")
        )
        return tree_map(self.gmd.detached, features) if self.is_sharing() and not own else features

    def encoded_tensor(self, encode: Callable[..., Tree], *arguments: Any) -> Tensor:
        """Encode one modality for recomputation. Raises InputError if the features are not a single tensor."""
        features = encode(*arguments)
        if not isinstance(features, Tensor):
            raise InputError(
                f"The encoders of {type(self.method).__name__} give several tensors, so they cannot be recomputed: "
                "leave out method.recompute."
            )
        return features

    def batches_branches(self) -> bool:
        """Whether the backward pass through a modality is batched over the cases.

        The option `batched` decides if it is set. Otherwise it is batched where that is faster: torch's convolutions
        over volumes are slow on the CPU for few samples, and two to three times faster for all cases at once; there is
        no gain for slices or transformers (`benchmarks/engine.py`).

        Raises:
            InputError: if `batched` is set but torch cannot compute batched branches.
        """
        modules = list(self.method.modules())
        weights = [module.weight for module in modules if isinstance(module, nn.Conv2d | nn.Conv3d)]
        strided = any(not weight.is_contiguous() for weight in weights)
        # Torch's norms have no rule for vmap where dtypes are mixed, and its group norm none for channels last.
        impossible = strided or any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        if self.batched and impossible:
            raise InputError(
                "Branches are batched in float32 and without train.channels_last only: leave out method.batched, "
                "train.precision or train.channels_last."
            )
        if self.batched is not None:
            return self.batched
        volumes = any(weight.ndim == 5 and weight.device.type == "cpu" for weight in weights)
        compiled = any(module._compiled_call_impl is not None for module in modules)  # torch cannot vmap its backward.
        return volumes and self.is_sharing() and not impossible and not compiled and not self.recompute

    def is_sharing(self) -> bool:
        """Whether the method trains a Dynamic Sharing network on cases alone, and rows are stored."""
        return (
            isinstance(self.method, CaseMethod)
            and isinstance(self.method.network, sharing.DynamicSharing)
            and type(self.method).extra_objectives is CaseMethod.extra_objectives
            and isinstance(self.gmd.jacobian, Stored)
        )

    def add(self, losses: Losses, objectives: Objectives, counts: Counts, totals: Counts) -> None:
        """Compute the gradient of each case separately, and add the gradients of the other objectives to `.grad`."""
        if not self.on:
            self.mean.add(losses, objectives, counts, totals)
            return
        others = [
            counts[name] / totals[name] * objectives[name].weight * loss
            for name, loss in losses.items()
            if not objectives[name].case
        ]
        if others and self.gmd.branches:
            # Branches are detached from the graph, and would receive the gradients of the cases alone.
            raise InputError(
                f"{type(self.method).__name__} has objectives beside its cases, "
                "so its encoders can be neither batched nor recomputed: leave out method.batched and method.recompute."
            )
        cases: dict[Hashable, Tensor] = {name: loss for name, loss in losses.items() if objectives[name].case}
        case_counts: dict[Hashable, float] = {name: counts[name] for name in totals if objectives[name].case}
        check_case_losses(cases, case_counts, self.gmd.shared)  # Before `.grad` changes.
        if others:
            torch.stack(others).sum().backward(retain_graph=True)
        self.added_others |= any(not objectives[name].case for name in totals)
        if case_counts:
            self.gmd.accumulate(cases, case_counts)

    def finish(self) -> Decoupling | None:
        """Sum the gradients of the other objectives over the ranks, then add the decoupled gradient of the cases."""
        if not self.on:
            self.mean.finish()
            return None
        if self.added_others:  # Before decoupling, since the gradients of the cases are already sums over all ranks.
            processes.sum_gradients(self.method.parameters())
        self.added_others = False
        return self.gmd.decouple() if self.gmd.jacobian.cases else None


UPDATES: dict[str, type[Mean] | type[Decoupled]] = {"mean": Mean, "gmd": Decoupled}


# ------------------------------------------------------------------------------------------- gradients of a step


@dataclass(frozen=True)
class Gradients:
    """Losses and sample counts of a training step whose gradients are in `.grad`.

    objectives: as the method declared them, by name.
    totals: by objective, the number of eligible samples in all micro-batches of all ranks.
    losses: name, mean loss and number of eligible samples, for each objective and micro-batch of this rank.
    decoupling: coefficients, norms, cosines and Gramian of the cases if the update rule decouples them, else None.
    """

    objectives: Objectives
    totals: Counts
    losses: Sequence[tuple[str, Tensor, int]]
    decoupling: Decoupling | None

    def means(self) -> dict[str, float]:
        """The mean loss of each objective over its eligible samples on all ranks."""
        parts = processes.gathered([(name, loss.item(), count) for name, loss, count in self.losses])
        return means_of(parts, self.totals)

    def loss_on_this_rank(self) -> float:
        """The mean loss over the cases plus the weighted sum of all other losses, of the samples of this rank."""
        parts = [(name, loss.item(), count) for name, loss, count in self.losses]
        counts: dict[str, int] = {}
        for name, _, count in parts:
            counts[name] = counts.get(name, 0) + count
        means = means_of(parts, counts)
        cases = [value for name, value in means.items() if self.objectives[name].case]
        others = [
            self.objectives[name].weight * value for name, value in means.items() if not self.objectives[name].case
        ]
        return (sum(cases) / len(cases) if cases else 0.0) + sum(others)


def means_of(parts: Iterable[tuple[str, float, int]], totals: Counts) -> dict[str, float]:
    """Mean over all samples for each name, from means over parts and their numbers of samples.

    Args:
        parts: name, mean and number of samples of each part.
        totals: by name, the number of samples in all parts.

    >>> means_of([("t1", 1.0, 3), ("t1", 5.0, 1)], {"t1": 4})
    {'t1': 2.0}
    """
    sums = dict.fromkeys(totals, 0.0)
    for name, value, count in parts:
        sums[name] += value * count
    return {name: sums[name] / total for name, total in totals.items()}


def eligible_counts(batch: Batch, objectives: Objectives) -> dict[str, int]:
    """The number of eligible samples in a batch for each objective."""
    return {
        name: len(eligible(batch.inputs, objective.needs)) if objective.needs else len(batch.ids)
        for name, objective in objectives.items()
    }


def fill_gradients(
    method: Method,
    update: Update,
    batches: Sequence[Batch],
    step: Step,
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Gradients | None:
    """Fill `.grad` with the gradient of one step.

    Args:
        method: on its device, in training mode.
        update: the update rule, created for this method.
        batches: the micro-batches of this rank.
        step: number and cases of the step.
        autocast: creates a context manager in which the losses are computed, for mixed precision.
        scale: multiplies a loss before it is differentiated, for a loss scaler.

    Returns:
        Losses and sample counts; None, with `.grad` unchanged, if no rank has an eligible sample for any objective.

    Raises:
        ValueError: if the method does not return exactly one loss for each objective that has eligible samples.
    """
    device = next(method.parameters()).device
    objectives = method.objectives(step)
    counts = [eligible_counts(batch, objectives) for batch in batches]
    sums = {name: sum(batch_counts[name] for batch_counts in counts) for name in objectives}
    totals = processes.totals(sums, device)
    if not totals:
        return None
    parts: list[tuple[str, Tensor, int]] = []
    for batch, batch_counts in zip(batches, counts, strict=True):
        with autocast():
            losses = method.losses(batch.to(device), step)
        check_losses(method, losses, batch_counts)
        parts += [(name, loss.detach(), batch_counts[name]) for name, loss in losses.items()]
        update.add({name: scale(loss) for name, loss in losses.items()}, objectives, batch_counts, totals)
    decoupling = update.finish()
    method.finish(step)
    return Gradients(objectives, totals, parts, decoupling)


def check_losses(method: Method, losses: Losses, counts: Counts) -> None:
    """Raise ValueError unless there is exactly one loss for each objective that has eligible samples."""
    expected = {name for name, count in counts.items() if count}
    if set(losses) != expected:
        raise ValueError(
            f"{type(method).__name__}.losses gave {', '.join(losses) or 'nothing'}; the objectives with samples in "
            f"this batch are {', '.join(name for name in counts if name in expected) or 'none'}."
        )
