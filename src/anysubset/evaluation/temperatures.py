"""Fit temperatures on the predictions of a split: of each scenario, shrunk half way to one for all scenarios."""

import hashlib
from collections import Counter
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
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.whole_volume import WholeVolume

FEWEST = 30  # A scenario with fewer samples has the temperature of all scenarios.
VOXELS = 50_000  # Largest number of voxels of a scenario, of all patients together.

# By scenario: outputs of the eligible samples, and their targets.
Predicted = Mapping[Scenario, tuple[Tensor, Tensor]]
Part = tuple[Scenario, Tensor, Tensor]


def predicted_rows(method: Method, dataset: TableDataset, split: str) -> Predicted:
    """By scenario: outputs (n, outputs) and targets (n,), on the CPU; several processes share the samples."""
    parts: list[Part] = []
    for block, scenario, outputs in outputs_by_scenario(method, dataset, split):
        assert isinstance(block, Block)
        parts.append((scenario, outputs.cpu().float(), block.target[eligible(block.inputs, scenario)]))
    return joined(processes.gathered(parts))


def predicted_voxels(method: Method, dataset: Volumes, split: str, seed: int) -> tuple[Predicted, Counter[Scenario]]:
    """By scenario: logits (n, regions) of random voxels with their targets, and the number of patients.

    The voxels of a patient lie in the box around the head, the same in every scenario with this box. They depend on the
    seed and the id alone. At most `VOXELS` of a scenario bound the memory.
    """
    most = max(1, VOXELS // len(dataset.ids(split)))
    parts: list[Part] = []
    for patient, scenario, logits in outputs_by_scenario(method, dataset, split):
        assert isinstance(patient, WholeVolume)
        code = hashlib.sha256(f"{seed}/{patient.ids[0]}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(code[:7], "big"))
        chosen = torch.randint(logits[0, 0].numel(), (most,), generator=generator)
        target = patient.box.of(patient.target)
        parts.append((scenario, logits[0].cpu().float().flatten(1)[:, chosen].T, target.flatten(1)[:, chosen].T))
    parts = processes.gathered(parts)
    return joined(parts), Counter(scenario for scenario, _, _ in parts)


def joined(parts: list[Part]) -> Predicted:
    """Outputs and targets of parts of the same scenario, concatenated."""
    by_scenario: dict[Scenario, list[tuple[Tensor, Tensor]]] = {}
    for scenario, outputs, target in parts:
        by_scenario.setdefault(scenario, []).append((outputs, target))
    return {
        scenario: (torch.cat([outputs for outputs, _ in rows]), torch.cat([target for _, target in rows]))
        for scenario, rows in by_scenario.items()
    }


def class_temperatures(predicted: Predicted) -> Temperatures:
    """Temperatures of classes; see `fitted`. predicted: of `predicted_rows`."""
    overall, by_scenario = fitted(predicted, {scenario: len(target) for scenario, (_, target) in predicted.items()})
    return Temperatures({ALL: overall}, {name: {ALL: own} for name, own in by_scenario.items()})


def region_temperatures(predicted: Predicted, patients: Mapping[Scenario, int], regions: list[str]) -> Temperatures:
    """Temperatures of the regions of a segmentation; see `fitted`.

    Args:
        predicted: of `predicted_voxels`.
        patients: number by scenario.
        regions: in the order of the logits.
    """
    overall: dict[str, float] = {}
    by_scenario: dict[str, dict[str, float]] = {}
    for index, region in enumerate(regions):
        # Inside and outside are two classes, with logits z and 0.
        of_region = {
            scenario: (torch.stack([torch.zeros(len(z)), z[:, index]], dim=1), inside[:, index].long())
            for scenario, (z, inside) in predicted.items()
        }
        overall[region], own = fitted(of_region, patients)
        for name, temperature in own.items():
            by_scenario.setdefault(name, {})[region] = temperature
    # A scenario may have its own temperature for some regions only.
    return Temperatures(overall, {name: {**overall, **own} for name, own in by_scenario.items()})


def fitted(predicted: Predicted, samples: Mapping[Scenario, int]) -> tuple[float, dict[str, float]]:
    """The temperature of all scenarios, and by name those of scenarios with their own.

    A scenario has its own if it has `FEWEST` samples and a mistake, without which the likelihood has no maximum. The
    temperature of all scenarios is fitted to all their predictions together; it is 1 without a mistake.

    Args:
        predicted: logits (n, classes) and targets (n,) by scenario.
        samples: their number by scenario.
    """
    logits, targets = zip(*predicted.values(), strict=True)
    overall = best_temperature(torch.cat(logits), torch.cat(targets)) or 1.0
    by_scenario = {}
    for scenario, (outputs, target) in predicted.items():
        own = best_temperature(outputs, target) if samples[scenario] >= FEWEST else None
        if own is not None:
            by_scenario[scenario_name(scenario)] = half_way(own, overall)
    return overall, by_scenario
