"""Who has what in each split of a dataset, for the record of a run."""

import json
from pathlib import Path
from typing import Any

from anysubset.datasets.dataset import Dataset
from anysubset.scenarios import Scenario, all_scenarios, scenario_name, support
from anysubset.system.files import whole

EVERY = 6  # Modalities of which every scenario is counted.


def availability(dataset: Dataset) -> dict[str, Any]:
    """By split: how many `samples`, the `hash` of their ids, and how many are eligible by scenario.

    Of many modalities, for each alone and for all together.
    """
    names = dataset.task.modalities
    counted: list[Scenario] = all_scenarios(names) if len(names) <= EVERY else [*((name,) for name in names), names]
    found = {}
    for split, ids in dataset.splits.items():
        if not ids or (split == "all" and len(dataset.splits) > 1):
            continue
        by_scenario = {scenario_name(each): count for each, count in support(dataset.present(split), counted).items()}
        found[split] = {"samples": len(ids), "hash": dataset.split_hash(split), "scenarios": by_scenario}
    return found


def write_availability(path: Path, dataset: Dataset) -> None:
    """As JSON, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(json.dumps(availability(dataset), indent=1) + "\n", encoding="utf-8")
