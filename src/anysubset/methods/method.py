"""The contract of a method: the objectives of a training step, and predictions from any subset of the modalities."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, as_observed, keep
from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.network import Network
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own optimizer, schedule and best weights.

    name: the key of its settings in `train.stages`.
    share: of `train.steps`, unless the settings give the stage its own steps. The shares of all stages add up to 1.
    settings: fields of `train` that differ in this stage by default; `train.stages` overrides them.
    scored: whether the method can predict in this stage, so that it is validated and the best weights are selected.
    """

    name: str = "train"
    share: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    scored: bool = True


@dataclass(frozen=True)
class Step:
    """Where training stands, and what was drawn for this step; the same on every rank and in every micro-batch.

    number: steps done before in this stage. epoch: how often each training sample was drawn in this stage, on average.
    stage: name of the stage. cases: the scenarios that this step trains on. seed: of whatever is drawn by sample.
    """

    number: int = 0
    epoch: float = 0.0
    stage: str = "train"
    cases: tuple[Scenario, ...] = ()
    seed: int = 0

    def chance(self, sample_id: str) -> torch.Generator:
        """A generator for one sample in this step: the same on any rank and in any micro-batch."""
        code = hashlib.sha256(f"{self.seed}/{self.stage}/{self.number}/{sample_id}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(code[:7], "big"))


@dataclass(frozen=True)
class Objective:
    """One loss of a step, declared before it is computed.

    needs: the modalities that a sample must have to count for this loss; empty if every sample counts.
    case: whether it is the loss of a case. Cases are averaged or decoupled; every other objective is added to that.
    weight: of an objective that is no case.
    """

    needs: Scenario = ()
    case: bool = False
    weight: float = 1.0


class Method(nn.Module, ABC):
    """How a network is trained, and how it predicts. Its options are the keyword arguments of the constructor.

    fits: the kinds of task that the method can be used for.
    unit: "sample", or "group" if batches must hold whole groups (all utterances of a video), in order. `Batch.groups`
        names the group of each sample; `predict` gets one group at a time.
    stages: parts of the training, in order.
    """

    fits: ClassVar[tuple[type[Task], ...]] = (Task,)
    unit: ClassVar[Literal["sample", "group"]] = "sample"
    stages: tuple[Stage, ...] = (Stage(),)

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    # ---------------------------------------------------------------------------------------------- training

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """Draw the cases of a step; none by default. All ranks draw the same from generators in the same state."""
        return ()

    @abstractmethod
    def objectives(self, step: Step) -> dict[str, Objective]:
        """The objectives of a step by name, whichever samples the batch holds."""

    @abstractmethod
    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective over the samples of the batch that count for it.

        An objective without such samples has no key.
        """

    def pools_batch(self) -> bool:
        """Whether an objective is a statistic of the whole batch, not a mean over its samples.

        A Dice loss pooled over the batch and a contrast between its samples are. Micro-batches then do not give exactly
        the gradient of the whole batch. By default, whether the loss of the task is.
        """
        return self.task.pools_batch

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters on which cases can conflict; empty if no parameter serves two modalities."""
        return []

    # -------------------------------------------------------------- what a method may do at certain moments

    def begin(self, ids: Sequence[str]) -> None:
        """Called once, before training or restoring, with the ids of the training samples."""

    def enter(self, stage: str) -> None:
        """Called when a stage begins, and again when training is resumed within it."""

    def finish(self, step: Step) -> None:
        """Called when `.grad` is that of the whole step on every rank, before the optimizer step."""

    def prediction_state(self) -> dict[str, Tensor]:
        """The part of `state_dict()` that prediction needs; everything by default."""
        return dict(self.state_dict())

    def check_inputs(self, inputs: Mapping[str, Observed]) -> None:
        """Raise InputError for inputs that one of its networks cannot take; called before training and prediction."""
        for module in self.modules():
            if isinstance(module, Network):
                module.check_inputs(inputs)

    # -------------------------------------------------------------------------------------------- prediction

    @abstractmethod
    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the modalities that it has.

        Args:
            inputs: by modality. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Predict samples that have the same modalities in each of some scenarios; one after the other by default.

        Args:
            inputs: by modality; those that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples.
        """
        for scenario in scenarios:
            yield scenario, carry(self.predict, keep(inputs, scenario))


def fuse_scenarios(
    branch: Callable[[str, Observed], Tensor],
    inputs: Inputs,
    scenarios: Iterable[Scenario],
    carry: Carry,
    head: Callable[[Tensor], Tensor] = lambda fused: fused,
) -> Iterator[tuple[Scenario, Tensor]]:
    """Predict all scenarios of a method that fuses by the mean, in M passes instead of M 2^(M-1).

    Args:
        branch: from the name and the input of a modality to what is averaged: its prediction, or its features.
        inputs: by modality; the samples must have the same modalities.
        scenarios: yielded in this order.
        carry: applies a function of training-sized inputs to whole samples.
        head: from the mean to the prediction; by default the mean is the prediction.
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
