"""Early fusion: the modalities are the input channels of one network, with zeros in place of the missing ones."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from anysubset.models.network import Network, Tree


class EarlyFusion(Network):
    """Joins the modalities as channels, and applies a network to them.

    Nothing is computed for one modality alone, so all parameters are shared by all modalities.

    Args:
        modalities: in the task's order, which is the order of the channels.
        body: from (n, modalities, ...) to the output.
    """

    def __init__(self, modalities: Iterable[str], body: nn.Module) -> None:
        super().__init__(modalities)
        self.body = body

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the input (n, 1, ...) as it is."""
        return x

    def decode(self, features: Mapping[str, Tensor]) -> Tree:
        """Output of the body on all channels, those of the missing modalities substituted."""
        present = next(iter(features.values()))
        channels = [
            features[modality] if modality in features else self.substitute(modality, present)
            for modality in self.modalities
        ]
        return self.body(torch.cat(channels, dim=1))

    def substitute(self, modality: str, present: Tensor) -> Tensor:
        """The channel of a missing modality: zeros. A subclass may learn it.

        Args:
            modality: the missing one.
            present: (n, 1, ...), the channel of a present modality; the result has its shape, dtype and device.
        """
        return torch.zeros_like(present)
