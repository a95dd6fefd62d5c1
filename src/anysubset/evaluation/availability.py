"""Count the eligible samples of each split and scenario, for the record of a run."""

import json
from pathlib import Path
from typing import Any

from anysubset.datasets.dataset import Dataset
from anysubset.scenarios import Scenario, all_scenarios, scenario_name, support
from anysubset.system.files import atomic_write

MAX_MODALITIES = 6  # Up to so many modalities, every scenario is counted.


def availability(dataset: Dataset) -> dict[str, Any]:
    """By split: number of `samples`, `hash` of their ids, and number of eligible samples by scenario (`scenarios`).

    With more than MAX_MODALITIES modalities, only each alone and all together are counted.
    """
    names = dataset.task.modalities
    scenarios: list[Scenario] = [*((name,) for name in names), names]
    if len(names) <= MAX_MODALITIES:
        scenarios = all_scenarios(names)
    by_split = {}
    for split, ids in dataset.splits.items():
        if not ids or (split == "all" and len(dataset.splits) > 1):
            continue
        counts = support(dataset.present(split), scenarios)
        by_scenario = {scenario_name(scenario): count for scenario, count in counts.items()}
        by_split[split] = {"samples": len(ids), "hash": dataset.split_hash(split), "scenarios": by_scenario}
    return by_split


def write_availability(path: Path, dataset: Dataset) -> None:
    """Write the counts as JSON; an interrupted write leaves no file."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(availability(dataset), indent=1) + "\n", encoding="utf-8")
