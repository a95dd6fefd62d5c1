"""The contract of a method: the objectives of a training step, and predictions from any subset of the modalities."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, as_observed, keep
from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.network import Network
from anysubset.scenarios import Scenario
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.task import Carry, Task, at_once


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own optimizer, schedule and best weights.

    name: the key of its settings in `train.stages`.
    share: share of `train.steps` that this stage takes, unless `train.stages` sets its steps. The shares of all stages
        with gradients add up to 1.
    fit_steps: number of steps in which `Method.fit` computes parameters from all training samples, without gradients
        and optimizer; 0 for a stage with gradients. A stage of such steps takes no share of `train.steps` or
        `train.flops`, and is validated after each step.
    settings: fields of `train` that differ in this stage by default; `train.stages` overrides them.
    scored: whether the method can predict in this stage. If so, it is validated and the best weights are selected.
    keeps_best: whether the stage ends with the selected weights instead of those of its last step. If the last stage
        does, the whole method is validated once more at its end.
    """

    name: str = "train"
    share: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    scored: bool = True
    keeps_best: bool = False
    fit_steps: int = 0


@dataclass(frozen=True)
class Step:
    """A training step: its number and its cases; the same on every rank and in every micro-batch.

    number: number of steps done before in this stage.
    epoch: how often each training sample was drawn in this stage, on average.
    stage: name of the stage.
    cases: the scenarios that this step trains on; empty if a scenario is drawn for each sample.
    seed: of the random numbers that are drawn for each sample.
    """

    number: int = 0
    epoch: float = 0.0
    stage: str = "train"
    cases: tuple[Scenario, ...] = ()
    seed: int = 0

    def chance(self, sample_id: str) -> torch.Generator:
        """A random generator for one sample in this step; its state does not depend on the rank or micro-batch."""
        code = hashlib.sha256(f"{self.seed}/{self.stage}/{self.number}/{sample_id}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(code[:7], "big"))


@dataclass(frozen=True)
class Objective:
    """One loss of a step, declared before it is computed.

    needs: the modalities that a sample must have to be eligible for this loss; empty if every sample is.
    case: whether it is the loss of a case. The gradients of the cases are averaged or decoupled; those of the other
        objectives are added to the result.
    weight: factor of the loss of an objective that is not a case; unused for cases.
    """

    needs: Scenario = ()
    case: bool = False
    weight: float = 1.0


class Method(nn.Module, ABC):
    """How a network is trained, and how it predicts. The keyword arguments of the constructor are its options.

    fits: the classes of task that the method supports.
    unit: "sample", or "group" if batches must hold whole groups (all utterances of a video), in order. `Batch.groups`
        then names the group of each sample, and `predict` gets one group at a time. An option may change it.
    without_groups: for messages about data without groups, what turns a method of groups into one of samples, such as
        "set method.conversation to false"; empty if nothing does.
    full_batch: whether every step takes all training samples, whatever `train.batch` is.
    undefined_metrics: metrics without a meaning for the predictions, which are left out of the scores.
    takes_weights: whether the losses of the task weigh the samples by `Batch.weights`.
    takes_several_targets: whether it supports tasks in which each sample has several numbers or labels.
    speakers: how many speakers of a group the method tells apart; 1 if it does not look at who speaks.
    stages: the stages of training, in order.
    """

    fits: ClassVar[tuple[type[Task], ...]] = (Task,)
    unit: Literal["sample", "group"] = "sample"
    without_groups: ClassVar[str] = ""
    takes_weights: bool = False
    takes_several_targets: bool = False
    speakers: int = 1
    full_batch: ClassVar[bool] = False
    undefined_metrics: Collection[str] = ()
    stages: tuple[Stage, ...] = (Stage(),)

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    # ---------------------------------------------------------------------------------------------- training

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """Draw the cases of a step; none by default.

        All ranks call this with generators in the same state, so they must draw from `generator` alone.
        """
        return ()

    @abstractmethod
    def objectives(self, step: Step) -> dict[str, Objective]:
        """The objectives of a step by name; they must not depend on the samples of the batch."""

    @abstractmethod
    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective over its eligible samples in the batch, a scalar.

        An objective without eligible samples has no key.
        """

    def fit(self, batches: Sequence[Batch], step: Step) -> None:
        """Compute parameters from all training samples, in a step of a stage with `fit_steps`.

        Parameters that are computed in this way do not require a gradient.

        Args:
            batches: together all training samples, on the CPU; the same on every rank. How the samples are divided and
                ordered must not change the result.
            step: number of the step and stage.
        """
        raise NotImplementedError(f"{type(self).__name__} has a stage with fit_steps, so it must define fit().")

    def pools_batch(self) -> bool:
        """Whether the loss of an objective is a statistic of the whole batch instead of a mean over its samples.

        Examples are a Dice loss pooled over the batch and a contrastive loss between its samples. Splitting such a
        batch into micro-batches changes the gradient. By default, whether the loss of the task is such a statistic.
        """
        return self.task.pools_batch

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that serve two or more modalities; cases can conflict on these. Empty by default."""
        return []

    def task_loss(self, output: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
        """The loss of the task, a scalar.

        Args:
            output: of the network for n samples.
            target: (n, ...).
            weights: (n,), of `Batch.weights_of`; None if all samples count alike.
        """
        if weights is None:
            return self.task.loss(output, target)
        assert isinstance(self.task, Prediction)  # Only tables have weights.
        return self.task.loss(output, target, weights)

    # --------------------------------------------------------------------- hooks; they do nothing by default

    def begin(self, ids: Sequence[str]) -> None:
        """Prepare for training. Called once, before training or restoring, with the ids of the training samples."""

    def enter(self, stage: str) -> None:
        """Prepare for a stage. Called when the stage begins, and again when training is resumed within it."""

    def finish(self, step: Step) -> None:
        """Adjust gradients. Called before the optimizer step, when every rank has the gradients of the whole step."""

    def complete(self) -> None:
        """Prepare for prediction. Called at the end of training if its last stage keeps its best weights."""

    def choices(self) -> dict[str, float]:
        """Numbers that validation chose beside the parameters, by name, for reports; none by default."""
        return {}

    def prediction_state(self) -> dict[str, Tensor]:
        """The part of `state_dict()` that prediction needs; everything by default."""
        return dict(self.state_dict())

    def check_inputs(self, inputs: Mapping[str, Observed]) -> None:
        """Raise InputError if a network of the method cannot take the inputs.

        Called before training and prediction: of a table with all samples, of volumes with one whole patient.
        """
        for module in self.modules():
            if isinstance(module, Network):
                module.check_inputs(inputs)

    # -------------------------------------------------------------------------------------------- prediction

    @abstractmethod
    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the modalities that it has.

        Args:
            inputs: by modality, no larger than in training. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        By default `predict` runs once per scenario.

        Args:
            inputs: by modality; modalities that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples, averaging over overlapping windows.
        """
        for scenario in scenarios:
            yield scenario, carry(self.predict, keep(inputs, scenario))


def fuse_present(
    branch: Callable[[str, Observed], Tensor],
    inputs: Inputs,
    head: Callable[[Tensor], Tensor] = lambda fused: fused,
) -> Tensor:
    """The prediction of every sample from the modalities that it has, for a method that averages over modalities.

    Arguments are those of `fuse_scenarios`; samples may differ in their modalities.
    """
    branches = {
        modality: Observed(branch(modality, observed), observed.indices)
        for modality, observed in as_observed(inputs).items()
    }
    return head(fusion.mean_of_present(branches))


def fuse_scenarios(
    branch: Callable[[str, Observed], Tensor],
    inputs: Inputs,
    scenarios: Iterable[Scenario],
    carry: Carry,
    head: Callable[[Tensor], Tensor] = lambda fused: fused,
) -> Iterator[tuple[Scenario, Tensor]]:
    """Yield each scenario with its prediction, for a method that averages over modalities.

    For M modalities and all scenarios this takes M forward passes instead of M 2^(M-1).

    Args:
        branch: from the name and the input of a modality to the tensor that is averaged over the present modalities:
            its prediction or its features.
        inputs: by modality; the samples must have the same modalities.
        scenarios: yielded in this order.
        carry: applies a function of training-sized inputs to whole samples, averaging over overlapping windows.
        head: from the mean over modalities to the prediction; by default the identity.

    Raises:
        InputError: if the samples differ in their modalities.
    """
    scenarios = list(scenarios)
    used = {modality for scenario in scenarios for modality in scenario}
    check_same_samples({modality: observed for modality, observed in as_observed(inputs).items() if modality in used})

    def branch_of(modality: str) -> Callable[[Inputs], Tensor]:
        return lambda window: branch(modality, as_observed(window)[modality])

    used_inputs = {modality: x for modality, x in inputs.items() if modality in used}
    branches = {modality: carry(branch_of(modality), {modality: x}) for modality, x in used_inputs.items()}
    for scenario in scenarios:
        yield scenario, head(fusion.mean(keep(branches, scenario)))


def check_same_samples(inputs: Mapping[str, Observed]) -> None:
    """Raise InputError unless all modalities are present in the same samples."""
    if len({tuple(observed.indices.tolist()) for observed in inputs.values()}) > 1:
        raise InputError("Samples whose scenarios are predicted together must have the same modalities.")
