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

from torch import Tensor

from anysubset.batches import Batch
from anysubset.errors import unknown
from anysubset.methods.method import Objective, Step
from anysubset.methods.teacher_student import TeacherStudent, agreement, map_dice
from anysubset.models.acn import AdversarialPair, self_information
from anysubset.models.adversary import adversarial_loss
from anysubset.models.residual_unet import check_dropout
from anysubset.models.teacher_student import Pairs
from anysubset.tasks.losses import at_least_float32
from anysubset.tasks.segmentation import Segmentation

TEACHER, STUDENT, INFORMATION = 0.2, 0.8, 0.5  # Weights of the published losses.
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
        check_dropout(dropout)
        if mi_target not in ("teacher", "self"):
            raise unknown("method.mi_target", mi_target, ["teacher", "self"])
        if entropy_input not in ("softmax", "sigmoid"):
            raise unknown("method.entropy_input", entropy_input, ["softmax", "sigmoid"])

        def pair(inputs: int) -> AdversarialPair:
            return AdversarialPair(len(task.modalities), inputs, len(task.classes), task.patch, dropout, width)

        network = Pairs(task.modalities, pair, unified)
        super().__init__(task, network, ramp=ramp, fresh_adversary=fresh_adversary)
        self.mi_target = mi_target
        self.entropy_input = entropy_input

    def objectives(self, step: Step) -> dict[str, Objective]:
        """The terms of the loss of a pair; all need samples with every modality, which the teacher sees."""
        weights = {
            "teacher": TEACHER,
            "student": STUDENT,
            "agreement": self.agreement_weight(step),
            "information": INFORMATION,
            "maps": 1.0,  # Of the discriminators; the weight of the student's part is in the gradient reversal.
            "features": 1.0,
        }
        return {name: Objective(self.task.modalities, weight=weight) for name, weight in weights.items()}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean of each term over the samples with every modality."""
        inputs, target = self.complete_samples(batch)
        if not inputs:
            return {}
        (scenario,) = step.cases
        teacher = self.network.taught(inputs, scenario)
        student = self.network.learned({modality: inputs[modality] for modality in scenario})
        pair = self.network.pair(scenario)
        assert isinstance(pair, AdversarialPair)
        target_features = student.bottleneck if self.mi_target == "self" else teacher.bottleneck
        return {
            "teacher": map_dice(teacher.logits, target),
            "student": map_dice(student.logits, target),
            "agreement": agreement(teacher.logits, student.logits),
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
