"""Dynamic Sharing: one backbone for all modalities, applied to the present ones only (eq. 1 and 2).

    h_m = backbone(stem_m(x_m), m)          H_S = mean of h_m over m in S          output = head(H_S)

An affine head commutes with the mean, so `encode` applies it to each modality once and `decode` averages the small
outputs: head(H_S) = mean of head(h_m). Otherwise `encode` gives h_m, and `decode` applies the head to the mean.

Private to a modality are its stem, if it has one, and the parameters that the backbone keys by the modality (affine
pairs of norms). All other parameters are shared; on these GMD measures conflict.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from anysubset.batches import Inputs, Observed, as_observed
from anysubset.errors import unknown
from anysubset.models import fusion
from anysubset.models.network import Network

# Heads for which the mean of outputs is the output of the mean. Exact types, since a subclass may override `forward`.
AFFINE = (nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class DynamicSharing(Network):
    """One network for any subset of its modalities.

    Args:
        modalities: in the task's order.
        backbone: called as `backbone(x, modality)`, for the unit "group" also as `backbone(x, modality, group)`, see
            `Network`; shared, except for parameters that it keys by modality.
        head: from fused features to the output.
        stems: one module per modality, applied before the backbone (the paper's f_m); None for no stems.
        unit: "group" if the backbone computes a sample from the others of its group, else "sample".
    """

    def __init__(
        self,
        modalities: Iterable[str],
        backbone: nn.Module,
        head: nn.Module,
        stems: Mapping[str, nn.Module] | None = None,
        unit: Literal["sample", "group"] = "sample",
    ) -> None:
        super().__init__(modalities)
        self.unit = unit
        self.stems = nn.ModuleDict(stems or {})
        self.backbone = backbone
        self.head = head

    @property
    def affine(self) -> bool:
        """True if the head is affine, so that averaging outputs is the same as averaging features."""
        return type(self.head) in AFFINE

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None, group: Tensor | None = None) -> Tensor:
        """Features h_m of the samples that have the modality, (n, features, ...); if the head is affine, its output.

        valid: (n, time) for sequences, see `Observed`; passed to the stem, or to the backbone if there are no stems.
        group: (n,) int64 on the CPU, the group of each sample; for the unit "group" alone, see `Network`.
        """
        if modality not in self.modalities:
            raise unknown("modality", modality, self.modalities)
        padding = () if valid is None else (valid,)
        groups = () if group is None else (group,)
        features: Tensor
        if modality in self.stems:
            features = self.backbone(self.stems[modality](x, *padding), modality, *groups)
        else:
            features = self.backbone(x, modality, *padding, *groups)
        if self.affine:
            features = self.head(features)
        return features

    def output_of_mean(self, mean: Tensor) -> Tensor:
        """Output from the mean of what `encode` gives: (n, ...)."""
        output: Tensor = mean if self.affine else self.head(mean)
        return output

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """Output of the head on the mean of the features (eq. 2): (n, ...)."""
        return self.output_of_mean(fusion.mean(features))

    def predict_one(self, modality: str, x: Tensor, valid: Tensor | None = None, group: Tensor | None = None) -> Tensor:
        """Output of a single modality; if the head is affine, the mean of these is the fused output."""
        return self.output_of_mean(self.encode(modality, x, valid, group))

    def forward(self, inputs: Inputs, groups: Sequence[str] | None = None) -> Tensor:
        """Output for every sample from the modalities that it has: (batch, ...).

        groups: the group of each sample, for the unit "group"; by default all samples are of one group.
        """
        features = self.features(as_observed(inputs), groups=groups)
        present = {modality: Observed(encoded.values, encoded.indices) for modality, encoded in features.items()}
        return self.output_of_mean(fusion.mean_of_present(present))
