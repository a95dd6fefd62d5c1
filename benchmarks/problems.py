"""The two networks of the benchmarks, with made-up data: what every contender is given."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset import DynamicSharing, UNet, scenario_name
from anysubset.modalities import Observed, Scenario, as_observed

Encode = Callable[[str, Tensor], Tensor]

CONTRASTS = ("flair", "t2", "t1ce", "t1")
STREAMS = ("text", "audio", "vision")


@dataclass(frozen=True)
class Problem:
    """What every contender is given.

    network: to be copied. cases: of the step. half: whether the forward pass runs under autocast to bfloat16.
    """

    network: DynamicSharing
    inputs: dict[str, Tensor]
    target: Tensor
    cases: list[Scenario]
    loss: Callable[[Tensor, Tensor], Tensor]
    half: bool = False

    def losses(self, network: DynamicSharing, encode: Encode | None = None) -> dict[str, Tensor]:
        """A loss a case; each modality that a case uses is computed once, by `encode` where that is given."""
        encode = encode or network.encode
        with torch.autocast(self.target.device.type, torch.bfloat16, enabled=self.half):
            needed = [name for name in network.modalities if any(name in case for case in self.cases)]
            observed = as_observed({name: self.inputs[name] for name in needed})
            features = {name: Observed(encode(name, some.values), some.rows) for name, some in observed.items()}
            answers = {scenario_name(case): network.answers(features, case)[0] for case in self.cases}
            return {case: self.loss(answer, self.target) for case, answer in answers.items()}


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """As `anysubset.losses.soft_dice`, but float64 stays float64, so that there is something to compare with."""
    chances = torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    axes = (0, *range(2, logits.ndim))
    overlap = (chances * target).sum(axes)
    return (1 - (2 * overlap + 1) / (chances.sum(axes) + target.sum(axes) + 1)).mean()


class OverTime(nn.Module):
    """(n, time, before) -> (n, time, after): a convolution along time."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(before, after, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Channels last in, channels last out."""
        return self.convolution(x.transpose(1, 2)).transpose(1, 2)


class SequenceBackbone(nn.Module):
    """(n, time, width) of any modality -> (n, width): a transformer that all modalities share, and the mean over time.

    Nothing is dropped out: every contender must see the same gradients.
    """

    def __init__(self, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """The modality makes no difference here."""
        encoded: Tensor = self.layers(x)
        return encoded.mean(dim=1)


def brats(size: int, batch: int, seed: int) -> tuple[DynamicSharing, dict[str, Tensor], Tensor]:
    """The network of the paper's BraTS experiments (3,245,235 parameters), one patch, and blobs for regions."""
    generator = torch.Generator().manual_seed(seed)
    backbone = UNet(CONTRASTS, dimensions=3, width=0.5)
    network = DynamicSharing(CONTRASTS, backbone, nn.Conv3d(backbone.features, 3, 1))
    shape = (batch, 3, size // 4, size // 4, size // 4)
    target = functional.interpolate(torch.rand(shape, generator=generator), size=(size,) * 3, mode="trilinear") > 0.55
    # Each contrast shows the first region and noise of its own, in its own sign.
    inputs = {
        name: (-1) ** place * target[:, :1] + torch.randn(batch, 1, size, size, size, generator=generator)
        for place, name in enumerate(CONTRASTS)
    }
    return network, inputs, target.float()


def sequences(
    width: int, layers: int, steps: int, batch: int, seed: int
) -> tuple[DynamicSharing, dict[str, Tensor], Tensor]:
    """Text, audio and vision: an encoder for each, one transformer for all, a score a sample."""
    generator = torch.Generator().manual_seed(seed)
    stems: dict[str, nn.Module] = {
        "text": nn.Linear(300, width),
        "audio": OverTime(74, width),
        "vision": OverTime(35, width),
    }
    network = DynamicSharing(STREAMS, SequenceBackbone(width, layers), nn.Linear(width, 1), stems)
    sizes = {"text": 300, "audio": 74, "vision": 35}
    inputs = {name: torch.randn(batch, steps, size, generator=generator) for name, size in sizes.items()}
    return network, inputs, 3 * torch.randn(batch, 1, generator=generator)
