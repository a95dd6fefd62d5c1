"""Network and contrastive loss of GMC, geometric multimodal contrastive learning.

Poklukar et al., "Geometric Multimodal Contrastive Representation Learning", ICML 2022.

A sample has a code of unit length for each modality, and a joint code, which a MulT computes from all modalities. The
contrastive loss aligns the code of each modality with the joint code of the same sample.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.models import fusion
from anysubset.models.encoders import FlatGRU, Steps
from anysubset.models.heads import ResidualHead
from anysubset.models.mult import MulT, as_steps
from anysubset.models.network import Network

WIDTH = 60


class Code(NamedTuple):
    """The features of one modality.

    code: (n, 60), of unit length.
    steps: (n, time, size): the input itself, which the joint branch needs.
    """

    code: Tensor
    steps: Steps


class GMCNetwork(Network):
    """Codes of single modalities, a joint code, and a head; 1,401,001 parameters for 300, 5 and 20 features.

    Args:
        sizes: features per step, by modality; two modalities or more.
        outputs: number of outputs of the head.
        steps: length of the longest sequence; a shorter one is padded in front.
    """

    def __init__(self, sizes: Mapping[str, int], outputs: int, steps: int = 50) -> None:
        super().__init__(sizes)
        self.encoders = nn.ModuleDict({name: FlatGRU(size, WIDTH, steps) for name, size in sizes.items()})
        self.joint = MulT(sizes)
        self.joint_head = ResidualHead(self.joint.width, WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)
        self.head = ResidualHead(WIDTH, outputs)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Code:
        """Code of one modality from (n, time, size)."""
        code = self.unit_code(self.encoders[modality](x, valid))
        return Code(code, as_steps(x, valid, self.joint.sizes[modality]))

    def decode(self, features: Mapping[str, Code]) -> Tensor:
        """Outputs (n, outputs) from the joint code if every modality is present, else from the mean of the codes.

        As published, the mean is not normalised to unit length.
        """
        if len(features) == len(self.modalities):
            code = self.joint_code(features)
        else:
            code = fusion.mean({modality: feature.code for modality, feature in features.items()})
        output: Tensor = self.head(code)
        return output

    def joint_code(self, features: Mapping[str, Code]) -> Tensor:
        """Joint code of all modalities: (n, 60), of unit length."""
        return self.unit_code(self.joint_head(self.joint({name: feature.steps for name, feature in features.items()})))

    def unit_code(self, x: Tensor) -> Tensor:
        """Project with the layer that all codes share, and normalise to unit length: (n, 60) -> (n, 60)."""
        return functional.normalize(self.projection(x), dim=1)


def contrast(joint: Tensor, single: Tensor, temperature: float = 0.3) -> Tensor:
    """NT-Xent loss of two sets of codes of the same n samples.

    The mean, over all 2n codes z, of -log(exp(z . z+ / t) / sum exp(z . z' / t)): z+ is the other code of the same
    sample, and z' runs over the other 2n - 1 codes. A batch of one sample has no negatives, so its loss is 0.

    Args:
        joint, single: (n, width), of unit length.
        temperature: t, above 0.
    """
    codes = torch.cat([joint, single])
    # In float32 at least, since exp overflows in half precision. Cross entropy uses log-sum-exp, which is stable.
    codes = codes.to(torch.promote_types(codes.dtype, torch.float32))
    itself = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    similarities = (codes @ codes.T / temperature).masked_fill(itself, float("-inf"))
    partners = torch.arange(len(codes), device=codes.device).roll(len(joint))
    return functional.cross_entropy(similarities, partners)
