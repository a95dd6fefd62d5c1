"""Pairs of a teacher, which sees every modality, and a student, which sees those of one incomplete scenario."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.models.network import Network
from anysubset.scenarios import Scenario, all_scenarios, scenario_name

UNIFIED = "every_scenario"  # Key of the only pair of a unified network.


class Pair(nn.Module):
    """A teacher and a student, from channels (n, channels, ...) to an output with logits and features."""

    def __init__(self, teacher: nn.Module, student: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.student = student


class Pairs(Network):
    """One pair for every incomplete scenario, or one for all of them.

    Missing modalities have no channel in the input of a dedicated student, and channels of zeros in that of a unified
    one. The full scenario is decoded by the teacher of the first pair.

    Args:
        modalities: of the task, two or more.
        pair: creates a pair from the number of input channels of its student.
        unified: whether one pair serves all scenarios.

    Raises:
        InputError: if there is only one modality.
    """

    def __init__(self, modalities: Scenario, pair: Callable[[int], Pair], unified: bool = False) -> None:
        super().__init__(modalities)
        if len(modalities) < 2:
            raise InputError("A student needs an incomplete scenario, so two or more modalities; these data have one.")
        self.incomplete = [scenario for scenario in all_scenarios(modalities) if len(scenario) < len(modalities)]
        self.unified = unified
        counts = {UNIFIED: len(modalities)} if unified else {scenario_name(own): len(own) for own in self.incomplete}
        self.pairs = nn.ModuleDict({name: pair(count) for name, count in counts.items()})

    def pair(self, scenario: Scenario) -> Pair:
        """The pair whose student serves an incomplete scenario."""
        pair = self.pairs[UNIFIED if self.unified else scenario_name(scenario)]
        assert isinstance(pair, Pair)
        return pair

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """x as it is: (n, 1, ...)."""
        return x

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """Logits of the student, or of the teacher in the full scenario."""
        output = self.taught(features) if len(features) == len(self.modalities) else self.learned(features)
        logits: Tensor = output.logits
        return logits

    def taught(self, features: Mapping[str, Tensor], scenario: Scenario | None = None) -> Any:
        """Output of the teacher of a scenario, of the first one by default, for samples with every modality."""
        x = torch.cat([features[modality] for modality in self.modalities], dim=1)
        return self.pair(scenario or self.incomplete[0]).teacher(x)

    def learned(self, features: Mapping[str, Tensor]) -> Any:
        """Output of the student for samples of one incomplete scenario: the modalities that have a key."""
        scenario = tuple(modality for modality in self.modalities if modality in features)
        channels = [features[modality] for modality in scenario]
        if self.unified:
            absent = torch.zeros_like(channels[0])
            channels = [features.get(modality, absent) for modality in self.modalities]
        return self.pair(scenario).student(torch.cat(channels, dim=1))
