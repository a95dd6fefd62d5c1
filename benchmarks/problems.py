"""Networks of the benchmarks with synthetic data: the same for every contender."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset import DynamicSharing, UNet, scenario_name
from anysubset.batches import Observed, as_observed
from anysubset.models.presets import sharing_network
from anysubset.scenarios import Scenario
from anysubset.tasks.prediction import Prediction, Stream

Encode = Callable[[str, Tensor, Tensor | None], Tensor]

CONTRASTS = ("flair", "t2", "t1ce", "t1")
STREAMS = ("text", "audio", "vision")


@dataclass(frozen=True)
class Problem:
    """Network, data and cases of a step; the same for every contender.

    network: every contender copies it. cases: of the step. half: forward pass under autocast to bfloat16.
    """

    network: DynamicSharing
    inputs: dict[str, Observed]
    target: Tensor
    cases: list[Scenario]
    loss: Callable[[Tensor, Tensor], Tensor]
    half: bool = False

    def losses(self, network: DynamicSharing, encode: Encode | None = None) -> dict[str, Tensor]:
        """Loss by case. Every modality is encoded once, by `encode` or by default by the network."""
        encode = encode or network.encode
        with torch.autocast(self.target.device.type, torch.bfloat16, enabled=self.half):
            needed = [name for name in network.modalities if any(name in case for case in self.cases)]
            observed = {name: self.inputs[name] for name in needed}
            features = {name: Observed(encode(name, x.values, x.valid), x.indices) for name, x in observed.items()}
            outputs = {scenario_name(case): network.output_of_case(features, case)[0] for case in self.cases}
            return {case: self.loss(output, self.target) for case, output in outputs.items()}


def soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    """As `anysubset.tasks.losses.soft_dice`, but float64 stays float64: the exact step needs it."""
    chances = torch.sigmoid(logits.to(torch.promote_types(logits.dtype, torch.float32)))
    axes = (0, *range(2, logits.ndim))
    overlap = (chances * target).sum(axes)
    return (1 - (2 * overlap + 1) / (chances.sum(axes) + target.sum(axes) + 1)).mean()


def brats(size: int, batch: int, seed: int, dimensions: int = 3) -> tuple[DynamicSharing, dict[str, Observed], Tensor]:
    """The network of the paper's BraTS experiments (3,245,235 parameters) or its 2-D version; regions are blobs."""
    generator = torch.Generator().manual_seed(seed)
    backbone = UNet(CONTRASTS, dimensions=dimensions, width=0.5)
    head = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions](backbone.features, 3, 1)
    coarse = torch.rand((batch, 3, *(size // 4,) * dimensions), generator=generator)
    smooth = {2: "bilinear", 3: "trilinear"}[dimensions]
    target = functional.interpolate(coarse, size=(size,) * dimensions, mode=smooth) > 0.55
    # Every modality shows the first region, with alternating sign and independent noise.
    inputs = {
        name: (-1) ** index * target[:, :1] + torch.randn((batch, 1, *(size,) * dimensions), generator=generator)
        for index, name in enumerate(CONTRASTS)
    }
    return DynamicSharing(CONTRASTS, backbone, head), as_observed(inputs), target.float()


def sequences(
    width: int, layers: int, steps: int, batch: int, seed: int
) -> tuple[DynamicSharing, dict[str, Observed], Tensor]:
    """Preset `ds-transformer` on text, audio and vision, with a number to predict.

    Its encoders are light: one convolution each. Without dropout, because every contender must see the same gradients.
    """
    sizes = {"text": 300, "audio": 74, "vision": 35}
    streams = {name: Stream("sequence", size) for name, size in sizes.items()}
    task = Prediction(STREAMS, streams=streams)
    network = sharing_network(task, width=width, layers=layers, dropout=0.0)
    return network, *made_up(sizes, steps, batch, seed)


def recurrent(width: int, steps: int, batch: int, seed: int) -> tuple[DynamicSharing, dict[str, Observed], Tensor]:
    """Preset `gmc`, on which the paper's sentiment network is based: heavy encoders, few shared layers."""
    sizes = {"text": 300, "audio": 74, "vision": 35}
    streams = {name: Stream("sequence", size) for name, size in sizes.items()}
    task = Prediction(STREAMS, streams=streams)
    return sharing_network(task, preset="gmc", width=width, steps=steps), *made_up(sizes, steps, batch, seed)


def made_up(sizes: Mapping[str, int], steps: int, batch: int, seed: int) -> tuple[dict[str, Observed], Tensor]:
    """Sequences of noise without padding, and a random target per sample."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.ones(batch, steps, dtype=torch.bool)
    inputs = {
        name: Observed(torch.randn(batch, steps, size, generator=generator), torch.arange(batch), valid)
        for name, size in sizes.items()
    }
    return inputs, torch.randn(batch, 1, generator=generator)
