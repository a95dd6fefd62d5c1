"""ACN: for every incomplete scenario a student that learns from a teacher with every modality (dedicated models).

Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities", MICCAI 2021.

Teacher and student of a scenario are trained together: on the segmentation, to agree on their maps, to share
information at the bottleneck, and against two discriminators, which tell the student's maps and features from the
teacher's. Differences from the published program:

- One program trains the pairs of all scenarios: a step trains the pair of one random scenario. The full scenario is
  predicted by a teacher, that of the first scenario.
- Gradient reversal takes the place of a second optimizer for the discriminators, which thereby keep its moments. The
  program makes their optimizers anew in every step (`fresh_adversary`).
- The mutual information is between the student's and the teacher's features. In the program it is between the student's
  features and themselves (`mi_target: self`).
- The self-information is that of the softmax of the logits. The program takes the softmax of sigmoids
  (`entropy_input: sigmoid`).
- Students are evaluated without dropout. The branch for image reconstruction, whose loss the program does not use, is
  left out. Sums of the Dice loss run over one sample, as in the program's batches of one.
"""

from types import MappingProxyType
from typing import Any

from torch import Tensor

from anysubset.errors import unknown
from anysubset.methods.teacher_student import TeacherStudent
from anysubset.models.acn import AdversarialPair, self_information
from anysubset.models.adversary import adversarial_loss
from anysubset.models.teacher_student import Pair
from anysubset.tasks.losses import at_least_float32
from anysubset.tasks.segmentation import Segmentation

MAPS, FEATURES = 0.001, 0.0002  # Weights of the adversarial losses of the student.


class ACN(TeacherStudent):
    """Trains a teacher and a student for every incomplete scenario.

    Args:
        task: modalities, regions and patch of the data set; two modalities or more.
        ramp: number of epochs, of the training of one pair, over which the weight of the agreement grows to 10.
        dropout: probability of dropout at the bottlenecks.
        width: factor of the numbers of channels, a multiple of 0.5; 1 as published.
        unified: whether one student serves all scenarios, with zeros for missing modalities.
        mi_target: features that the student's regression predicts: the `teacher`'s, or its own (`self`), as in the
            published program.
        entropy_input: probabilities whose self-information is compared: `softmax` of the logits, or `sigmoid`, the
            softmax of sigmoids, as in the published program.
        fresh_adversary: whether the optimizer of the discriminators forgets its moments after every step, as in the
            published program.

    Raises:
        InputError: if the sizes of the patch are no multiples of 8, or an option is out of range.
    """

    # The published weights. Those of the discriminators are 1; the student's part is weighted in the gradient reversal.
    teacher_weight = 0.2
    student_weight = 0.8
    weights_of_features = MappingProxyType({"information": 0.5, "maps": 1.0, "features": 1.0})

    def __init__(
        self,
        task: Segmentation,
        *,
        ramp: float = 20.0,
        dropout: float = 0.2,
        width: float = 1.0,
        unified: bool = False,
        mi_target: str = "teacher",
        entropy_input: str = "softmax",
        fresh_adversary: bool = False,
    ) -> None:
        if mi_target not in ("teacher", "self"):
            raise unknown("method.mi_target", mi_target, ["teacher", "self"])
        if entropy_input not in ("softmax", "sigmoid"):
            raise unknown("method.entropy_input", entropy_input, ["softmax", "sigmoid"])
        super().__init__(
            task,
            AdversarialPair,
            ramp=ramp,
            dropout=dropout,
            width=width,
            fresh_adversary=fresh_adversary,
            unified=unified,
        )
        self.mi_target = mi_target
        self.entropy_input = entropy_input

    def losses_of_features(self, pair: Pair, teacher: Any, student: Any) -> dict[str, Tensor]:
        """The losses of the shared information and of both discriminators, by name; scalars."""
        assert isinstance(pair, AdversarialPair)
        target_features = student.bottleneck if self.mi_target == "self" else teacher.bottleneck
        return {
            "information": pair.information_loss(student.bottleneck, target_features.detach()),
            "maps": adversarial_loss(
                pair.map_discriminator, self.information(teacher.logits), self.information(student.logits), MAPS
            ),
            "features": adversarial_loss(pair.feature_discriminator, teacher.bottleneck, student.bottleneck, FEATURES),
        }

    def information(self, logits: Tensor) -> Tensor:
        """Self-information of the class probabilities, (n, classes, ...)."""
        maps = logits.sigmoid() if self.entropy_input == "sigmoid" else logits
        return self_information(at_least_float32(maps).softmax(dim=1))
