"""Blend: several methods are trained one after the other, and their predictions are averaged.

Every part is trained in stages of its own, on an equal share of the steps or of the budget in FLOPs, and predicts with
its own best weights. Parts without gradients, such as `linear`, take no share. Probabilities of classes and of regions
are averaged; so are numbers. The update rule is an option of each part:
parts: [{name: sharing, gradients: gmd}, ensemble].
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed
from anysubset.errors import InputError, unknown
from anysubset.gradients import Decoupling
from anysubset.methods.method import Method, Objective, Stage, Step
from anysubset.methods.update import Counts, Losses, Objectives, Update
from anysubset.models.presets import NetworkOptions
from anysubset.scenarios import Scenario
from anysubset.tasks.losses import at_least_float32
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.task import Carry, Task, at_once


@dataclass(frozen=True)
class Part:
    """A method of a blend with its update rule. name: of the method in the table."""

    name: str
    method: Method
    update: Update


# Creates a part from its name, or from a mapping with its name and options, and from options for all parts.
CreatePart = Callable[[Any, Mapping[str, Any]], Part]
DEFAULT = ("sharing", "ensemble")
WEIGHTS = ("equal", "validated")


class Blend(Method):
    """Predicts the average of its parts; in a stage of training, what the part of this stage predicts.

    Args:
        task: modalities, loss and prediction of the data set.
        create: creates a part.
        parts: in the order of their training: names of methods, or mappings with `name` and options, such as
            [{name: sharing, width: 0.5}, ensemble]. A name may occur several times: the networks begin with other
            weights. By default [sharing, ensemble].
        weights: how much each part counts in the average: `equal`, or `validated`, one weight for each part that is
            chosen on validation when all parts are trained (`evaluation/blend_weights.py`).
        **network: options of the networks of all parts that have them; `sharing_network` explains them.

    Raises:
        InputError: if there is no part, a part needs whole groups or steps of gradients on all samples, or it has an
            unknown option.
    """

    weights: Tensor | None

    def __init__(
        self,
        task: Task,
        create: CreatePart,
        *,
        parts: list[Any] | None = None,
        weights: str = "equal",
        **network: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(task)
        chosen: Sequence[Any] = DEFAULT if parts is None else parts
        if not chosen:
            raise InputError("method.parts names one method or more, such as [sharing, ensemble].")
        if weights not in WEIGHTS:
            raise unknown("method.weights", weights, WEIGHTS)
        created = [create(part, network) for part in chosen]
        for part in created:
            if part.method.unit == "group":
                raise InputError(f"Method {part.name!r} predicts whole groups, so it cannot be a part of a blend.")
            if part.method.full_batch and takes_gradients(part.method):
                raise InputError(f"Method {part.name!r} trains on all samples at once, so it is no part of a blend.")
        by_label = dict(zip(distinct([part.name for part in created]), created, strict=True))
        self.parts = nn.ModuleDict({label: part.method for label, part in by_label.items()})
        self.updates = {label: part.update for label, part in by_label.items()}
        # By name of a stage of the blend: the label of its part, and the stage of the part.
        self.origins: dict[str, tuple[str, Stage]] = {}
        for label, part in by_label.items():
            several = len(part.method.stages) > 1
            self.origins |= {f"{label}_{own.name}" if several else label: (label, own) for own in part.method.stages}
        sharing = sum(takes_gradients(part.method) for part in created)
        self.stages = tuple(
            replace(own, name=name, share=own.share / max(sharing, 1), keeps_best=own.scored)
            for name, (_, own) in self.origins.items()
        )
        chosen_weights = torch.full((len(created),), 1 / len(created), dtype=torch.float64)
        # Of the parts in order; None if they are equal, so that these runs need no tensor of it.
        self.register_buffer("weights", chosen_weights if weights == "validated" else None)
        self.takes_weights = all(part.method.takes_weights for part in created)
        self.takes_several_targets = all(part.method.takes_several_targets for part in created)
        self.active: str | None = None  # Label of the part that is trained; None if all parts predict.

    @property
    def weight_of(self) -> dict[str, float]:
        """The weight of each part, by label."""
        weights = [1 / len(self.parts)] * len(self.parts) if self.weights is None else self.weights.tolist()
        return dict(zip(self.parts, weights, strict=True))

    def part(self, label: str) -> Method:
        """The part with a label, which is its name, with a number if there are several of this name."""
        part = self.parts[label]
        assert isinstance(part, Method)
        return part

    def everyone(self) -> list[Method]:
        """All parts, in order."""
        return [self.part(label) for label in self.parts]

    # ---------------------------------------------------------------------------------------------- training

    def part_at(self, step: Step) -> tuple[Method, Step]:
        """The part that is trained at a step of the blend, and the step as this part counts it.

        A step of another stage is one of the first part.
        """
        label, own = self.origins.get(step.stage, next(iter(self.origins.values())))
        return self.part(label), replace(step, stage=own.name)

    def begin(self, ids: Sequence[str]) -> None:
        """Prepare all parts for training."""
        for part in self.everyone():
            part.begin(ids)

    def enter(self, stage: str) -> None:
        """Prepare for the stage of a part; from here on this part alone is trained and predicts."""
        label, own = self.origins[stage]
        self.active = label
        self.part(label).enter(own.name)

    def complete(self) -> None:
        """From here on all parts predict."""
        self.active = None
        for part in self.everyone():
            part.complete()

    @property
    def trained(self) -> str:
        """Label of the part that is trained: that of the stage, or the first one before any stage was entered."""
        return self.active or next(iter(self.parts))

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """Draw the cases of a step, as the part that is trained draws them."""
        return self.part(self.trained).draw(generator)

    def objectives(self, step: Step) -> dict[str, Objective]:
        """The objectives of the part that is trained."""
        part, own = self.part_at(step)
        return part.objectives(own)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The losses of the part that is trained."""
        part, own = self.part_at(step)
        return part.losses(batch, own)

    def fit(self, batches: Sequence[Batch], step: Step) -> None:
        """Fit the part that is trained to all training samples."""
        part, own = self.part_at(step)
        part.fit(batches, own)

    def finish(self, step: Step) -> None:
        """Adjust the gradients of the part that is trained."""
        part, own = self.part_at(step)
        part.finish(own)

    def pools_batch(self) -> bool:
        """Whether a loss of a part is a statistic of the whole batch."""
        return any(part.pools_batch() for part in self.everyone())

    def prediction_state(self) -> dict[str, Tensor]:
        """What the parts need for prediction, and their weights if validation chose them."""
        of_parts = {
            f"parts.{label}.{name}": value
            for label in self.parts
            for name, value in self.part(label).prediction_state().items()
        }
        return of_parts if self.weights is None else {**of_parts, "weights": self.weights}

    def choices(self) -> dict[str, float]:
        """The weights of the parts, if validation chose them, and what it chose in the parts that predict."""
        predicting = self.parts if self.active is None else [self.active]
        weighted = self.active is None and self.weights is not None
        weights = {f"weight of {label}": weight for label, weight in self.weight_of.items()} if weighted else {}
        of_parts = ((label, self.part(label).choices()) for label in predicting)
        return weights | {f"{label} {name}": value for label, own in of_parts for name, value in own.items()}

    def check_inputs(self, inputs: Mapping[str, Observed]) -> None:
        """Raise InputError if a part cannot take the inputs."""
        for part in self.everyone():
            part.check_inputs(inputs)

    # -------------------------------------------------------------------------------------------- prediction

    def predicting(self) -> list[Method]:
        """The parts whose predictions are averaged."""
        return self.everyone() if self.active is None else [self.part(self.active)]

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the modalities that it has.

        Args:
            inputs: by modality, no larger than in training. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """
        return average(self.task, [part.predict(inputs) for part in self.predicting()], self.weights)

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        Args:
            inputs: by modality; modalities that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples, averaging over overlapping windows.
        """
        scenarios = list(scenarios)
        by_part = [part.predict_scenarios(inputs, scenarios, carry) for part in self.predicting()]
        for together in zip(*by_part, strict=True):
            yield together[0][0], average(self.task, [prediction for _, prediction in together], self.weights)


class UpdateOfPart(Update):
    """The update rule of the part that is trained. method: the blend."""

    def __init__(self, method: Blend) -> None:
        self.method = method

    @property
    def current(self) -> Update:
        """The update rule of the part that is trained."""
        return self.method.updates[self.method.trained]

    def begin_stage(self, stage: str, optimizer: torch.optim.Optimizer) -> None:
        """Prepare the update rule of the part that is trained in the stage."""
        label, own = self.method.origins[stage]
        self.method.updates[label].begin_stage(own.name, optimizer)

    def add(self, losses: Losses, objectives: Objectives, counts: Counts, totals: Counts) -> None:
        """Add the losses of one micro-batch."""
        self.current.add(losses, objectives, counts, totals)

    def finish(self) -> Decoupling | None:
        """Fill `.grad` with the gradient of the whole step."""
        return self.current.finish()


def takes_gradients(method: Method) -> bool:
    """Whether a method has a stage with gradients, so that it takes a share of the steps."""
    return any(not stage.fit_steps for stage in method.stages)


def distinct(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that occur several times.

    >>> distinct(["sharing", "ensemble", "sharing"])
    ['sharing_1', 'ensemble', 'sharing_2']
    """
    totals, seen = Counter(names), Counter[str]()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(f"{name}_{seen[name]}" if totals[name] > 1 else name)
    return labels


def average(task: Task, predictions: Sequence[Tensor], weights: Tensor | None = None) -> Tensor:
    """The prediction of a blend from those of its parts, as each would be returned by `Method.predict`.

    Logits are averaged as probabilities: of the classes (softmax), or of every region (sigmoid). That of a single part
    is unchanged.

    weights: (parts,), positive, with the sum 1; None if they are equal.
    """
    if len(predictions) == 1:
        return predictions[0]
    logits = torch.stack([at_least_float32(prediction) for prediction in predictions])
    if not isinstance(task, Prediction) or task.labels:
        # The logit of the mean probability, from logarithms: exact also where the probabilities round to 0 or 1.
        inside, outside = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
        return log_mean(inside, weights) - log_mean(outside, weights)
    if task.classes:
        return log_mean(logits.log_softmax(dim=-1), weights)
    return logits.mean(dim=0) if weights is None else torch.einsum("p,p...->...", weights.to(logits), logits)


def log_mean(logs: Tensor, weights: Tensor | None = None) -> Tensor:
    """The logarithm of the mean over the first axis of numbers whose logarithms these are.

    weights: of the mean, as for `average`.
    """
    if weights is None:
        return logs.logsumexp(dim=0) - math.log(len(logs))
    return (logs + weights.log().to(logs).view(-1, *[1] * (logs.ndim - 1))).logsumexp(dim=0)
