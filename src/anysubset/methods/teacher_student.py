"""Base class of methods that train a student for every incomplete scenario with a teacher that has every modality."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from anysubset.batches import Batch, eligible
from anysubset.errors import InputError
from anysubset.methods.method import Objective, Step
from anysubset.methods.network_method import NetworkMethod
from anysubset.models.network import Encoded, Tree, select
from anysubset.models.residual_unet import check_dropout, check_patch
from anysubset.models.teacher_student import Pair, Pairs
from anysubset.scenarios import Scenario
from anysubset.tasks.losses import at_least_float32, squared_dice
from anysubset.tasks.segmentation import Segmentation

RAMP = 10.0  # Largest weight of the agreement.
FRESH_RATE = 1e-4  # Learning rate of discriminators whose optimizer is made anew in every step.


# Creates the pair of a scenario. Arguments: number of modalities, number of channels of the student's input, number of
# classes, size of the training patch in voxels, dropout at the bottlenecks, factor of the numbers of channels.
CreatePair = Callable[[int, int, int, tuple[int, ...], float, float], Pair]


class TeacherStudent(NetworkMethod):
    """Trains pairs of networks on mutually exclusive classes; a step trains the pair of one random scenario.

    Both networks are trained on the segmentation and to agree on their maps. The original programs train the pairs one
    after the other. A subclass gives the weights, and defines `losses_of_features`. Modules whose names end in
    `_discriminator` are discriminators.

    Args:
        task: modalities, regions and patch of the data set; two modalities or more.
        pair: creates the pair of a scenario.
        ramp: number of epochs, of the training of one pair, over which the weight of the agreement grows to 10.
        dropout: probability of dropout at the bottlenecks.
        width: factor of the numbers of channels.
        fresh_adversary: whether the optimizer of the discriminators forgets its moments after every step.
        unified: whether one pair serves all scenarios.
        threshold: probability of a class above which a voxel belongs to it.

    Raises:
        InputError: if an option is out of range, or the network cannot halve the patch at every level.
    """

    fits = (Segmentation,)
    teacher_weight: ClassVar[float]  # Of the segmentation by the teacher.
    student_weight: ClassVar[float]
    weights_of_features: ClassVar[Mapping[str, float]]  # Of the losses in `losses_of_features`, by name.
    network: Pairs
    task: Segmentation

    def __init__(
        self,
        task: Segmentation,
        pair: CreatePair,
        *,
        ramp: float,
        dropout: float,
        width: float,
        fresh_adversary: bool,
        unified: bool = False,
        threshold: float = 0.5,
    ) -> None:
        check_dropout(dropout)

        def create(student_inputs: int) -> Pair:
            return pair(len(task.modalities), student_inputs, len(task.classes), task.patch, dropout, width)

        super().__init__(task, Pairs(task.modalities, create, unified))
        check_patch(task.patch, type(self).__name__)
        if ramp <= 0:
            raise InputError(f"method.ramp is a number of epochs above 0, not {ramp}.")
        if not 0 < threshold < 1:
            raise InputError(f"method.threshold is a probability between 0 and 1, not {threshold}.")
        self.ramp = ramp
        self.fresh_adversary = fresh_adversary
        self.threshold = threshold

    def pools_batch(self) -> bool:
        """False: every loss is a mean over the samples."""
        return False

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """The scenario whose pair is trained; the others get no gradient."""
        index = int(torch.randint(len(self.network.incomplete), (), generator=generator))
        return (self.network.incomplete[index],)

    # ---------------------------------------------------------------------------------------------- training

    @abstractmethod
    def losses_of_features(self, pair: Pair, teacher: Any, student: Any) -> dict[str, Tensor]:
        """The losses that compare the features of the networks, by name; scalars.

        Args:
            pair: the trained pair.
            teacher: output of its teacher for n samples.
            student: output of its student for the same samples.
        """

    def objectives(self, step: Step) -> dict[str, Objective]:
        """The terms of the loss of a pair; all need samples with every modality, which the teacher sees."""
        weights = {
            "teacher": self.teacher_weight,
            "student": self.student_weight,
            "agreement": self.agreement_weight(step),
            **self.weights_of_features,
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
        return {
            "teacher": map_dice(teacher.logits, target),
            "student": map_dice(student.logits, target),
            "agreement": agreement(teacher.logits, student.logits),
            **self.losses_of_features(self.network.pair(scenario), teacher, student),
        }

    def agreement_weight(self, step: Step) -> float:
        """Weight of the agreement; it depends on how often the pair of the step has seen the samples, on average."""
        return ramp_up(step.epoch / len(self.network.pairs), self.ramp)

    def complete_samples(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Inputs by modality, (n, 1, ...), and `one_hot` targets of the n samples with every modality."""
        indices = eligible(batch.inputs, self.task.modalities)
        if not len(indices):
            return {}, batch.target[:0]
        inputs: Mapping[str, Tensor] = {
            modality: select(Encoded(observed.values, observed.indices), indices)
            for modality, observed in batch.inputs.items()
        }
        return dict(inputs), one_hot(self.task, batch.target[indices])

    def finish(self, step: Step) -> None:
        """With `fresh_adversary`, take the first step of a new Adam optimizer for the discriminators.

        Its moments are g and g^2, so the step is `FRESH_RATE` g / |g|.
        """
        if not self.fresh_adversary:
            return
        for name, parameter in self.named_parameters():
            if "_discriminator." in name and parameter.grad is not None:
                parameter.data.sub_(FRESH_RATE * parameter.grad / (parameter.grad.abs() + 1e-8))
                parameter.grad = None

    # -------------------------------------------------------------------------------------------- prediction

    def carried(self, output: Tree) -> Tensor:
        """Logits of the regions, (n, regions, ...); 0 at the threshold."""
        return region_logits(self.task, output) - math.log(self.threshold / (1 - self.threshold))

    def prediction_state(self) -> dict[str, Tensor]:
        """Students, and the teacher that predicts the full scenario."""
        first = next(iter(self.network.pairs))
        used = (f"network.pairs.{first}.teacher.", *(f"network.pairs.{name}.student." for name in self.network.pairs))
        return {name: value for name, value in self.state_dict().items() if name.startswith(used)}


# -------------------------------------------------------------------------------------------- losses and logits


def ramp_up(epoch: float, epochs: float = 20.0) -> float:
    """Weight of the agreement: 10 exp(-5 (1 - t)^2), where t grows from 0 to 1 over `epochs`.

    >>> round(ramp_up(0), 6), round(ramp_up(5), 6), round(ramp_up(10), 6), ramp_up(20), ramp_up(100)
    (0.067379, 0.600547, 2.865048, 10.0, 10.0)
    """
    return RAMP * math.exp(-5 * (1 - min(epoch / epochs, 1)) ** 2)


def one_hot(task: Segmentation, target: Tensor) -> Tensor:
    """Masks of the classes other than the background: (n, regions, ...) bool -> (n, classes - 1, ...) bool."""
    classes = task.class_of(target)
    return torch.stack([classes == number for number in range(1, len(task.classes))], dim=1)


def map_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Squared Dice loss summed over the classes other than the background, a scalar.

    Args:
        logits: (n, classes, ...).
        target: (n, classes - 1, ...) bool, of `one_hot`.
    """
    return squared_dice(at_least_float32(logits[:, 1:]).sigmoid(), target).sum()


def agreement(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared difference of the maps of each class other than the background, summed over the classes.

    Both arguments are logits (n, classes, ...); both networks receive a gradient.
    """
    difference = at_least_float32(teacher[:, 1:]).sigmoid() - at_least_float32(student[:, 1:]).sigmoid()
    return difference.square().transpose(0, 1).flatten(1).mean(dim=1).sum()


def region_logits(task: Segmentation, logits: Tensor) -> Tensor:
    """Logits of the regions from one logit a class: (n, classes, ...) -> (n, regions, ...).

    A voxel lies in a region if a class of the region has a probability above 1/2, so the logit of a region is the
    largest of its classes.
    """
    inside = torch.tensor(task.classes, device=logits.device).T
    return torch.stack([logits[:, own].amax(dim=1) for own in inside], dim=1)
