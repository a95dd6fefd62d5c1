"""The spread of predicted numbers around their targets, by scenario."""

from typing import Any

import torch

from anysubset.evaluation.temperatures import FEWEST, Predicted
from anysubset.scenarios import scenario_name
from anysubset.scoring.temperature import half_way


def spreads_of(predicted: Predicted) -> dict[str, Any]:
    """Root mean square of the residuals, in the unit of the targets.

    Args:
        predicted: by scenario, outputs (n, 1) and targets (n,).

    Returns:
        `overall`, that of the predictions of all scenarios together, and `by_scenario`, by name, for those with
        `FEWEST` samples: half way from their own to the overall one, in the logarithm.
    """
    residuals = {scenario: outputs[:, 0].double() - target for scenario, (outputs, target) in predicted.items()}
    overall = deviation(torch.cat([*residuals.values()]))
    return {
        "overall": overall,
        "by_scenario": {
            scenario_name(scenario): half_way(deviation(of_scenario), overall)
            for scenario, of_scenario in residuals.items()
            if len(of_scenario) >= FEWEST
        },
    }


def deviation(residuals: torch.Tensor) -> float:
    """Root mean square of (n,) residuals."""
    return float(residuals.square().mean().sqrt())
