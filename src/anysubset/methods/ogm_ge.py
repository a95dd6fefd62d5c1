"""OGM-GE: one expert per modality, trained on their joint loss, with smaller gradients for the leading modality.

Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022, made for two modalities and
classification. For modality m with the score s_m, the mean probability that its own output gives to the truth:

    rho_m = s_m / mean of the other s_j;  kappa_m = 1 - tanh(alpha rho_m) if rho_m > 1, else 1
    gradient of each weight of encoder m: kappa_m g + noise from N(0, std(g)^2)

Scores carry no gradient. The encoder of a modality is all of its expert but the head; biases and norms keep their
gradients. Differences from the published program, and what it leaves open:

- With three and more modalities the partner of rho is undefined; here it is the mean of the others (`partner`).
- Segmentation is undefined. Here the score of a modality is the soft Dice of its own output, and the mean of the
  outputs is trained. For numbers, `score: laplace` is the mean of exp(-|error|).
- All weights of the encoders are modulated. The program does so for those of convolutions (`only_conv`).
- Training on random scenarios (`cases: random=1`) is an addition; a modality alone in its step keeps its gradient.
- The noise is drawn for each step from its seed, so that it is the same on all ranks and after a resume.

On volumes nothing is shared between modalities, so no gradients can conflict; on tables the bias of the sum is shared.
"""

import math
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from anysubset.batches import Batch, eligible
from anysubset.errors import InputError, unknown
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Step
from anysubset.models.network import Encoded, select
from anysubset.models.ogm_ge import Experts, MeanOfExperts, SumOfExperts
from anysubset.models.presets import NetworkOptions, sharing_network
from anysubset.system import processes
from anysubset.tasks.losses import probabilities_of, soft_dice
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.segmentation import Segmentation

PARTNERS = ("mean", "pairs", "min")
SCORES = ("probability", "laplace")
SMALLEST = 1e-12  # Of a score that others are divided by.


class OGMGE(CaseMethod):
    """Trains one expert per modality on the loss of their joint output, with modulated gradients.

    Args:
        task: modalities, loss and prediction of the data set.
        cases: the scenarios of a step: `full` as published, `random=1` for one at random, or `all`, `missing=R` or
            `random=K`; `CaseMethod` explains them.
        alpha: strength of the modulation, 0 or more; 0.1 to 0.8 in the paper. Results depend on it strongly.
        start: epoch from which gradients are modulated.
        end: epoch after which they are not modulated any more.
        partner: what the score of a modality is divided by: the `mean` of the other scores, each of them, with the mean
            of these ratios (`pairs`), or the smallest score of all (`min`).
        enhance: whether noise is added to the gradients.
        only_conv: whether only the weights of convolutions are modulated, as in the published program.
        score: of a modality: `probability` of the true class, or soft Dice for segmentation; `laplace` for numbers.
        **network: options of the network of every expert; `sharing_network` explains them. On tables the head is
            linear.

    Raises:
        InputError: if an option is out of range or does not suit the task.
    """

    fits = (Segmentation, Prediction)
    without_groups = "leave out method.context"
    network: Experts

    def __init__(
        self,
        task: Segmentation | Prediction,
        *,
        cases: str = "full",
        alpha: float = 0.1,
        start: float = 0.0,
        end: float = 50.0,
        partner: str = "mean",
        enhance: bool = True,
        only_conv: bool = False,
        score: str = "probability",
        **network: Unpack[NetworkOptions],
    ) -> None:
        if not alpha >= 0:
            raise InputError(f"method.alpha is 0 or more, not {alpha}.")
        if not 0 <= start <= end:
            raise InputError(f"method.start and method.end are epochs, 0 <= start <= end, not {start} and {end}.")
        if partner not in PARTNERS:
            raise unknown("method.partner", partner, PARTNERS)
        check_score(task, score)
        super().__init__(task, experts_of(task, network), cases=cases)
        if self.sampler is None:
            raise InputError(f"OGM-GE compares the modalities of a step: set method.cases to random=1, not {cases}.")
        self.alpha, self.start, self.end = alpha, start, end
        self.partner, self.enhance, self.only_conv = partner, enhance, only_conv
        # Of the current step: modality, mean score and number of samples, for each micro-batch of this rank.
        self.scores: list[tuple[str, Tensor, int]] = []
        self.scored_step: Step | None = None

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each case over its eligible samples; also scores the modalities of the batch."""
        features = self.features(batch, step, whole=False)
        if step != self.scored_step:
            self.scores, self.scored_step = [], step
        self.scores += self.scores_of(features, batch.target, step)
        return self.losses_of_cases(features, batch, step)

    @torch.no_grad()
    def scores_of(self, features: Mapping[str, Encoded], target: Tensor, step: Step) -> list[tuple[str, Tensor, int]]:
        """Each modality with its mean score over the samples that are trained on with it, and their number.

        Args:
            features: of the modalities of the cases.
            target: of all samples of the batch.
            step: its cases say which samples are trained on.
        """
        scores = []
        for modality, encoded in features.items():
            eligible_to = [eligible(features, case).tolist() for case in step.cases if modality in case]
            indices = torch.tensor(sorted({index for one in eligible_to for index in one}), dtype=torch.int64)
            if len(indices):
                output = self.network.alone(select(encoded, indices))
                scores.append((modality, self.score_of(output, target[indices]), len(indices)))
        return scores

    def score_of(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean probability that outputs (n, outputs, ...) give to the truth, a scalar from 0 to 1."""
        target = target.to(output.device)
        if isinstance(self.task, Segmentation):
            return 1 - soft_dice(output, target, self.task.pool)
        assert isinstance(self.task, Prediction)
        if self.task.classes:
            return probabilities_of(output).gather(1, target[:, None]).mean()
        return (output[:, 0] - target).abs().neg().exp().mean()

    @torch.no_grad()
    def finish(self, step: Step) -> None:
        """Scale the gradients of the encoders' weights, and add noise to them, from epoch `start` to `end`."""
        parts = processes.gathered([(modality, score.item(), count) for modality, score, count in self.scores])
        self.scores = []
        if not self.start <= step.epoch <= self.end:
            return
        counts: dict[str, int] = {}
        sums: dict[str, float] = {}
        for modality, score, count in parts:
            counts[modality] = counts.get(modality, 0) + count
            sums[modality] = sums.get(modality, 0.0) + score * count
        scores = {modality: sums[modality] / counts[modality] for modality in sums}
        for modality, ratio in ratios(scores, self.partner).items():
            for name, weight in self.network.encoder_weights(modality, self.only_conv).items():
                if weight.grad is not None:
                    # On the CPU, so that the noise does not depend on the device.
                    noise = torch.randn(weight.shape, generator=step.chance(f"{modality}/{name}"))
                    modulate(weight.grad, factor(ratio, self.alpha), noise if self.enhance else None)


def experts_of(task: Segmentation | Prediction, options: NetworkOptions) -> Experts:
    """One network per modality, joined by the mean of their outputs, or for tables by their sum.

    Raises:
        InputError: if an option is unknown or its value is not allowed.
    """
    if isinstance(task, Segmentation):
        return MeanOfExperts({modality: sharing_network(task, [modality], **options) for modality in task.modalities})
    if options.get("head") not in (None, "linear"):
        raise InputError(f"OGM-GE adds up linear terms: leave out method.head, which is {options['head']}.")
    linear: NetworkOptions = {**options, "head": "linear"}
    experts = {modality: sharing_network(task, [modality], **linear) for modality in task.modalities}
    return SumOfExperts(experts, task.outputs)


def check_score(task: Segmentation | Prediction, score: str) -> None:
    """Raise InputError if the score is unknown or does not suit the target."""
    if score not in SCORES:
        raise unknown("method.score", score, SCORES)
    numbers = isinstance(task, Prediction) and not task.classes
    if numbers and score != "laplace":
        raise InputError("Numbers have no probability: set method.score to laplace, or use data with classes.")
    if not numbers and score == "laplace":
        raise InputError("method.score laplace is for numbers: leave it out for classes and segmentation.")


def ratios(scores: Mapping[str, float], partner: str) -> dict[str, float]:
    """rho of each modality: its score divided by those of the others; 1 for a modality alone.

    Args:
        scores: by modality, 0 or more.
        partner: "mean" of the others; "pairs" for the mean of the ratios to each of them; or "min", the smallest score
            of all.
    """
    if len(scores) == 1:
        return dict.fromkeys(scores, 1.0)
    result = {}
    for modality, score in scores.items():
        others = [max(other, SMALLEST) for name, other in scores.items() if name != modality]
        if partner == "pairs":
            result[modality] = sum(score / other for other in others) / len(others)
        elif partner == "min":
            result[modality] = score / max(min(scores.values()), SMALLEST)
        else:
            result[modality] = score / (sum(others) / len(others))
    return result


def factor(ratio: float, alpha: float) -> float:
    """kappa: 1 - tanh(alpha rho) for a ratio rho above 1, else 1.

    >>> round(factor(2.0, 0.1), 6), factor(0.5, 0.1)
    (0.802625, 1.0)
    """
    return 1 - math.tanh(alpha * ratio) if ratio > 1 else 1.0


def modulate(gradient: Tensor, kappa: float, noise: Tensor | None) -> None:
    """Replace a gradient g by kappa g + std(g) x noise, in place.

    noise: standard normal numbers of the same shape; None for no noise.
    """
    # Of the gradient before it is scaled. The population's, which is 0 and not NaN for a single weight.
    deviation = gradient.std(correction=0)
    gradient.mul_(kappa)
    if noise is not None:
        gradient.add_(noise.to(gradient) * deviation)
