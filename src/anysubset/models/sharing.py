"""Dynamic Sharing: one backbone for every modality, run on what is present and on nothing else (eq. 1 and 2).

    h_m = backbone(stem_m(x_m), m)          H_S = mean of h_m over m in S          answer = head(H_S)

A modality owns its stem, if there is one, and whatever the backbone keys by its name (norm affines). All else is
shared, and is what GMD measures conflict on.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from anysubset.batches import Inputs, Observed, as_observed, eligible
from anysubset.errors import unknown
from anysubset.models import fusion
from anysubset.scenarios import Scenario

# Heads that give the same before the mean as after it. A subclass may do anything, so it does not count.
AFFINE = (nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class DynamicSharing(nn.Module):
    """One network for any subset of its modalities.

    Args:
        modalities: in the task's order.
        backbone: called as `backbone(x, modality)`; shared, but for what it keys by modality.
        head: from fused features to the answer; `affine` says whether it may be moved across the mean.
        stems: one module a modality, applied before the backbone (the paper's f_m); None for none.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        backbone: nn.Module,
        head: nn.Module,
        stems: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.modalities: Scenario = tuple(modalities)
        self.stems = nn.ModuleDict(stems or {})
        self.backbone = backbone
        self.head = head

    @property
    def affine(self) -> bool:
        """Whether the answer of the mean is the mean of the answers; if not, features alone may be averaged."""
        return type(self.head) in AFFINE

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, features, ...): h_m of the samples that have the modality.

        valid: (n, time) for sequences, see `Observed`; the stem takes it, or the backbone where there is no stem.
        """
        if modality not in self.modalities:
            raise unknown("modality", modality, self.modalities)
        padding = () if valid is None else (valid,)
        features: Tensor
        if modality in self.stems:
            features = self.backbone(self.stems[modality](x, *padding), modality)
        else:
            features = self.backbone(x, modality, *padding)
        return features

    def features(self, inputs: Mapping[str, Observed]) -> dict[str, Observed]:
        """h_m of every modality that is there, each computed once."""
        return {
            name: Observed(self.encode(name, observed.values, observed.valid), observed.indices)
            for name, observed in inputs.items()
        }

    def answers(self, features: Mapping[str, Observed], scenario: Scenario) -> tuple[Tensor, Tensor]:
        """The answers of the samples that are eligible for a scenario, and their places in the batch."""
        rows = eligible(features, scenario)
        if not len(rows):
            return torch.empty(0), rows
        present = {name: at(features[name], rows) for name in scenario}
        return self.head(fusion.mean(present)), rows

    def answer_one(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The answer of one modality alone; if the head is affine, the mean of these is the fused answer."""
        answer: Tensor = self.head(self.encode(modality, x, valid))
        return answer

    def forward(self, inputs: Inputs) -> Tensor:
        """(batch, ...): the answer of every sample from what it has."""
        observed = as_observed(inputs)
        answer: Tensor = self.head(fusion.mean_of_present(self.features(observed)))
        return answer

    def shared_parameters(self) -> list[nn.Parameter]:
        """What all modalities share: everything but stems and what is keyed by a modality's name."""
        owned = {
            id(parameter)
            for module in self.modules()
            if isinstance(module, nn.ModuleDict | nn.ParameterDict) and set(module.keys()) <= set(self.modalities)
            for parameter in module.parameters()
        }
        return [parameter for parameter in self.parameters() if id(parameter) not in owned]


def at(observed: Observed, rows: Tensor) -> Tensor:
    """(len(rows), ...): the values of the samples in these places of the batch, all of which have the modality."""
    if len(rows) == len(observed.indices):
        return observed.values
    return observed.values[torch.searchsorted(observed.indices, rows)]
