"""SMU-Net: for every incomplete scenario a student that matches the style and content of a teacher (dedicated models).

Azad, Khosravi and Merhof, "SMU-Net: Style matching U-Net for brain tumor segmentation with missing modalities",
MIDL 2022.

Differences from the published program:

- One program trains the pairs of all scenarios: a step trains the pair of one random scenario. The full scenario is
  predicted by a teacher, that of the first scenario.
- The style loss compares the Gram matrices of each sample. In the program one Gram matrix mixes the channels of all
  samples, and is normalised twice, so that the loss does nothing (`style: released`).
- Gradient reversal takes the place of a second optimizer for the discriminators, which thereby keep its moments. The
  program makes their optimizers anew in every step (`fresh_adversary`).
- Students are evaluated without dropout. Sums of the Dice loss run over one sample, as in batches of one.
"""

from types import MappingProxyType
from typing import Any

from torch import Tensor

from anysubset.errors import unknown
from anysubset.methods.teacher_student import TeacherStudent
from anysubset.models.adversary import adversarial_loss
from anysubset.models.smunet import StylePair, released_style_loss, style_loss
from anysubset.models.teacher_student import Pair
from anysubset.tasks.segmentation import Segmentation

ADVERSARY = 0.0002  # Weight of the adversarial loss of the student.
STYLES = {"sample": style_loss, "released": released_style_loss}


class SMUNet(TeacherStudent):
    """Trains a teacher and a student for every incomplete scenario.

    Args:
        task: modalities, regions and patch of the data set; two modalities or more.
        ramp: number of epochs, of the training of one pair, over which the weight of the agreement grows to 10.
        dropout: probability of dropout at the bottlenecks.
        width: factor of the numbers of channels, a multiple of 0.5; 1 as published.
        style: Gram matrices that the style loss compares: those of each `sample`, or one of the whole batch with the
            normalisation of the published program (`released`).
        threshold: probability of a class above which a voxel belongs to it; 0.4 in the published program.
        fresh_adversary: whether the optimizer of the discriminators forgets its moments after every step, as in the
            published program.

    Raises:
        InputError: if the sizes of the patch are no multiples of 8, or an option is out of range.
    """

    # The published weights. That of the discriminator is 1; the student's part is weighted in the gradient reversal.
    teacher_weight = 0.4
    student_weight = 0.6
    weights_of_features = MappingProxyType({"content": 0.2, "style": 1.0, "adversary": 1.0})

    def __init__(
        self,
        task: Segmentation,
        *,
        ramp: float = 20.0,
        dropout: float = 0.2,
        width: float = 1.0,
        style: str = "sample",
        threshold: float = 0.5,
        fresh_adversary: bool = False,
    ) -> None:
        if style not in STYLES:
            raise unknown("method.style", style, STYLES)
        super().__init__(
            task,
            StylePair,
            ramp=ramp,
            dropout=dropout,
            width=width,
            fresh_adversary=fresh_adversary,
            threshold=threshold,
        )
        self.style = style

    def pools_batch(self) -> bool:
        """Whether the style loss mixes the samples of a batch."""
        return self.style == "released"

    def losses_of_features(self, pair: Pair, teacher: Any, student: Any) -> dict[str, Tensor]:
        """The losses of content, style and their discriminator, by name; scalars."""
        assert isinstance(pair, StylePair)
        return {
            "content": (teacher.content - student.content).square().mean(),
            "style": STYLES[self.style](teacher.style, student.style),
            "adversary": adversarial_loss(pair.style_discriminator, teacher.style, student.style, ADVERSARY),
        }
