"""Gradient-guided Modality Decoupling on Dynamic Sharing.

Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality Robustness": a gradient for each case over
the shared parameters, conflicting components removed, the rest averaged.
"""

from collections.abc import Hashable, Mapping
from functools import partial

import torch
from torch import nn

from anysubset.batches import Observed
from anysubset.errors import InputError, unknown
from anysubset.gradients import GMD, Decoupling, copies_named
from anysubset.methods.dynamic_sharing import DynamicSharingMethod, default_cases
from anysubset.methods.method import Loss
from anysubset.scenarios import Scenario, case_sampler
from anysubset.tasks.task import Task


class GradientDecoupling(DynamicSharingMethod):
    """GMD + DS.

    Args:
        task: what the data ask for.
        generator: draws the cases and the orders of projection.
        cases: `all`, `missing=R` or `random=K`; by default all up to four modalities, else `random=5`.
        rule: how conflicts are removed; see `anysubset.gradients.rules`.
        reduction: `mean` or `sum` of the projected gradients.
        conflict: where conflict is measured: on the `shared` parameters, or on `all`.
        batched: whether the cases are differentiated together, modality by modality, which takes as many times the
            memory of a backward pass through one modality; by default for volumes on the CPU, where it is faster.
        recompute: whether to hold the activations of one modality at a time only, for one more forward pass a step.
        floor: a gradient shorter than this share of the longest is no reference; 0 for the exact rule.
    """

    def __init__(
        self,
        task: Task,
        generator: torch.Generator | None = None,
        *,
        cases: str | None = None,
        rule: str = "sequential",
        reduction: str = "mean",
        conflict: str = "shared",
        batched: bool | None = None,
        recompute: bool = False,
        floor: float = 1e-8,
    ) -> None:
        super().__init__(task, generator)
        if conflict not in ("shared", "all"):
            raise unknown("conflict", conflict, ["shared", "all"])
        measured = self.network.parameters() if conflict == "all" else self.network.shared_parameters()
        self.sampler = case_sampler(task.modalities, cases or default_cases(task.modalities))
        if batched and recompute:
            raise InputError(
                "Branches are either batched or recomputed: set one of method.batched and method.recompute."
            )
        self.batched = batched
        self.recompute = recompute
        self.gmd = GMD(
            measured,
            rule=partial(copies_named(rule), floor=floor),
            reduction=reduction,
            private=self.network.parameters(),
            generator=self.generator,
        )

    def cases(self) -> list[Scenario]:
        """As the sampler draws them."""
        return self.sampler(self.generator)

    def features(self, inputs: Mapping[str, Observed]) -> dict[str, Observed]:
        """With a graph, or to be computed once more when it is needed."""
        if self.recompute:
            return {
                name: Observed(self.gmd.recomputed(self.network.encode, name, seen.values, seen.valid), seen.indices)
                for name, seen in inputs.items()
            }
        features = super().features(inputs)
        if self.together:
            return {name: Observed(self.gmd.batched(seen.values), seen.indices) for name, seen in features.items()}
        return features

    @property
    def together(self) -> bool:
        """Whether branches are batched: as was asked for, or else where that is faster.

        Torch's convolutions over volumes are slow on the CPU for few samples, and two to three times faster for all
        cases at once; over slices, and in transformers, there is nothing to gain (`benchmarks/engine.py`).

        Raises:
            InputError: if it was asked for where it cannot be.
        """
        backbone = self.network.backbone
        weights = [module.weight for module in backbone.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
        laid_out = any(not weight.is_contiguous() for weight in weights)
        # Torch's norms have no rule for vmap where dtypes are mixed, and its group norm none for channels last.
        odd = laid_out or any(map(torch.is_autocast_enabled, ("cpu", "cuda")))
        if self.batched and odd:
            raise InputError(
                "Branches are batched in float32 and without train.channels_last only: leave out method.batched, "
                "train.precision or train.channels_last."
            )
        if self.batched is not None:
            return self.batched
        volumes = any(weight.ndim == 5 and weight.device.type == "cpu" for weight in weights)
        compiled = backbone._compiled_call_impl is not None  # Such a backward pass is not torch's to map.
        return volumes and not odd and not compiled and not self.recompute

    def accumulate(self, losses: Mapping[str, Loss], totals: Mapping[str, int]) -> None:
        """The rows of one part of a batch."""
        counts: dict[Hashable, float] = dict.fromkeys(totals, 0)
        counts.update((name, loss.eligible) for name, loss in losses.items())
        self.gmd.accumulate({name: loss.value for name, loss in losses.items()}, counts)

    def measuring(self) -> GMD:
        """The very one that decouples."""
        return self.gmd

    def finish(self) -> Decoupling:
        """The decoupled gradient, with the weights, cosines and norms of the step."""
        return self.gmd.decouple()
