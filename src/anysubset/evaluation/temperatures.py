"""Fit temperatures on the predictions of a split: of each scenario, shrunk half way to one for all scenarios."""

from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import eligible
from anysubset.evaluation.every_scenario import outputs_by_scenario
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import ALL
from anysubset.scoring.temperature import best_temperature, half_way
from anysubset.system import processes
from anysubset.tables.block import Block
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.temperatures import Temperatures

FEWEST = 30  # A scenario with fewer samples has the temperature of all scenarios.

# By scenario: the outputs (n, outputs) of the eligible samples, and their targets (n,).
Predicted = Mapping[Scenario, tuple[Tensor, Tensor]]


@torch.no_grad()
def predicted_rows(method: Method, dataset: TableDataset, split: str) -> Predicted:
    """Outputs and targets of every scenario, on the CPU. Several processes share the samples (all-gather)."""
    parts: list[tuple[Scenario, Tensor, Tensor]] = []
    for block, scenario, outputs in outputs_by_scenario(method, dataset, split):
        assert isinstance(block, Block)
        parts.append((scenario, outputs.cpu().float(), block.target[eligible(block.inputs, scenario)]))
    by_scenario: dict[Scenario, list[tuple[Tensor, Tensor]]] = {}
    for scenario, outputs, target in processes.gathered(parts):
        by_scenario.setdefault(scenario, []).append((outputs, target))
    return {
        scenario: (torch.cat([outputs for outputs, _ in rows]), torch.cat([target for _, target in rows]))
        for scenario, rows in by_scenario.items()
    }


def class_temperatures(predicted: Predicted) -> Temperatures:
    """Temperatures of classes.

    A scenario has its own if it has `FEWEST` samples, one of them mispredicted: without a mistake the likelihood has no
    maximum. The temperature of all scenarios is fitted to all their predictions together; it is 1 without a mistake.
    """
    logits, targets = zip(*predicted.values(), strict=True)
    overall = best_temperature(torch.cat(logits), torch.cat(targets)) or 1.0
    by_scenario = {}
    for scenario, (outputs, target) in predicted.items():
        own = best_temperature(outputs, target) if len(target) >= FEWEST else None
        if own is not None:
            by_scenario[scenario_name(scenario)] = {ALL: half_way(own, overall)}
    return Temperatures({ALL: overall}, by_scenario)
