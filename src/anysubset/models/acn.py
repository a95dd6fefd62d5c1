"""ACN: a teacher and a student with the networks that are trained between them.

Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities", MICCAI 2021.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.models.adversary import SLOPE, strided
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.residual_unet import ResidualUNet, channels_of
from anysubset.models.teacher_student import Pair

MAP_CHANNELS = (64, 128, 256, 512, 1)  # Of the discriminator of maps.
FEATURE_CHANNELS = (256, 512)  # Of the discriminator of features, before its output.
START = 5.0  # Variance of a channel at the start of training.


class AdversarialPair(Pair):
    """Teacher, student, the regression from the student's bottleneck to the teacher's, and two discriminators.

    Args:
        teacher_inputs: number of modalities.
        student_inputs: number of channels of the student.
        outputs: number of classes.
        patch: size of the training patch in voxels, on which the depth of the discriminator of maps depends.
        dropout: at the bottlenecks.
        width: factor of the numbers of channels of all networks.
    """

    def __init__(
        self,
        teacher_inputs: int,
        student_inputs: int,
        outputs: int,
        patch: tuple[int, ...],
        dropout: float,
        width: float,
    ) -> None:
        dimensions = len(patch)
        super().__init__(
            ResidualUNet(teacher_inputs, outputs, dimensions, dropout, width),
            ResidualUNet(student_inputs, outputs, dimensions, dropout, width),
        )
        channels = channels_of(width)[-1]
        convolution = CONVOLUTION[dimensions]
        layers: list[nn.Module] = [convolution(channels, channels, 1, bias=False) for _ in range(3)]
        self.regression = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        self.raw_variance = nn.Parameter(torch.full((channels,), START).expm1().log())  # Before softplus.
        self.map_discriminator = strided((outputs, *map_channels(patch, width)), dimensions)
        first, second = (int(size * width) for size in FEATURE_CHANNELS)
        self.feature_discriminator = nn.Sequential(
            convolution(channels, first, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            convolution(first, second, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            convolution(second, 1, 3, stride=2, padding=1),
        )

    def information_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Negative variational bound on the mutual information of two bottlenecks, up to a constant; a scalar.

        Mean of 1/2 [(mu(student) - teacher)^2 / s + log s], where mu is the regression and s the variance of a channel.

        Args:
            student: (n, channels, ...). teacher: the same shape.
        """
        variance = functional.softplus(self.raw_variance) + 1e-5
        variance = variance.view(1, -1, *[1] * (student.ndim - 2))
        difference: Tensor = self.regression(student) - teacher
        return 0.5 * (difference.square() / variance + variance.log()).mean()


def map_channels(patch: tuple[int, ...], width: float = 1.0) -> tuple[int, ...]:
    """Channels after each convolution of the discriminator of maps: five, or fewer for patches below 32 voxels."""
    depth = min(len(MAP_CHANNELS), int(math.log2(min(patch))))
    return (*(int(size * width) for size in MAP_CHANNELS[: depth - 1]), 1)


def self_information(probabilities: Tensor) -> Tensor:
    """-p log2 p / log2 C of every class and voxel, (n, C, ...); 0 where p = 0."""
    return -torch.xlogy(probabilities, probabilities) / math.log(probabilities.shape[1])
