"""Temperatures by which logits are divided, so that probabilities are calibrated."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import ALL


@dataclass(frozen=True)
class Temperatures:
    """Temperatures by region (`all` for classes), fitted on validation.

    overall: of scenarios without their own; empty if nothing was calibrated: every temperature is 1.
    by_scenario: by name of the scenario, of those that have their own.
    """

    overall: Mapping[str, float] = field(default_factory=dict)
    by_scenario: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def fitted(self) -> bool:
        """Whether there are temperatures."""
        return bool(self.overall)

    def of(self, scenario: Scenario, region: str = ALL) -> float:
        """The temperature of a scenario."""
        return self.by_scenario.get(scenario_name(scenario), self.overall).get(region, 1.0)
