"""Dynamic Sharing: one backbone for every modality, run on what is present and on nothing else (eq. 1 and 2).

    h_m = backbone(stem_m(x_m), m)          H_S = mean of h_m over m in S          output = head(H_S)

A modality owns its stem, if there is one, and whatever the backbone keys by its name (norm affines). All else is
shared, and is what GMD measures conflict on.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from anysubset.batches import Inputs, Observed, as_observed
from anysubset.errors import unknown
from anysubset.models import fusion
from anysubset.models.network import Network

# Heads that give the same before the mean as after it. A subclass may do anything, so it does not count.
AFFINE = (nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class DynamicSharing(Network):
    """One network for any subset of its modalities.

    Args:
        modalities: in the task's order.
        backbone: called as `backbone(x, modality)`; shared, but for what it keys by modality.
        head: from fused features to the output; `affine` says whether it may be moved across the mean.
        stems: one module a modality, applied before the backbone (the paper's f_m); None for none.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        backbone: nn.Module,
        head: nn.Module,
        stems: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(modalities)
        self.stems = nn.ModuleDict(stems or {})
        self.backbone = backbone
        self.head = head

    @property
    def affine(self) -> bool:
        """Whether the output of the mean is the mean of the outputs; if not, only features may be averaged."""
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

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """(n, ...): the head on the mean of the features (eq. 2)."""
        output: Tensor = self.head(fusion.mean(features))
        return output

    def predict_one(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """The output of one modality alone; if the head is affine, the mean of these is the fused output."""
        output: Tensor = self.head(self.encode(modality, x, valid))
        return output

    def forward(self, inputs: Inputs) -> Tensor:
        """(batch, ...): the output of every sample from what it has."""
        features = self.features(as_observed(inputs))
        present = {modality: Observed(encoded.values, encoded.indices) for modality, encoded in features.items()}
        output: Tensor = self.head(fusion.mean_of_present(present))
        return output
