"""A table -> an answer for each sample from what it has, and what is known of such answers."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import ALL
from anysubset.system.files import whole
from anysubset.tables.block import Block
from anysubset.tables.dataset import TableDataset


@torch.no_grad()
def answer(
    method: Method, dataset: TableDataset, folder: Path, known: Mapping[str, Any]
) -> tuple[Path, Counter[Scenario]]:
    """Writes `predictions.csv` and `predictions.json` into a folder, which must be there.

    The table has a row a sample, in the order of the file: `id`, the modalities `used`, the `answer` (the number, or
    the name of the likeliest class), and the `chance_<class>` of each class. The JSON has, for every scenario that was
    used, how many samples it served, and what the weights score on validation in that very scenario.

    Args:
        method: trained.
        dataset: of the samples to be answered; their targets are not looked at.
        folder: where to write.
        known: the facts of the checkpoint: `step`, `validation_samples`, and by scenario `validation`, the mean loss,
            and `validation_scores`, the metrics over the set.

    Returns:
        The path of the table, and how many samples each scenario served.
    """
    method.eval()
    task = dataset.task
    rows: dict[str, list[str]] = {}
    used: Counter[Scenario] = Counter()
    for block, present, found in answered(method, dataset):
        found = found.float()
        used[present] += len(block.ids)
        chances = found.softmax(dim=1).tolist() if task.classes else [[] for _ in block.ids]
        for sample, decided, shares in zip(block.ids, task.decision(found).tolist(), chances, strict=True):
            said = task.classes[decided] if task.classes else repr(decided)
            rows[sample] = [sample, scenario_name(present), said, *map(repr, shares)]
    path = folder / "predictions.csv"
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "used", "answer", *(f"chance_{name}" for name in task.classes)])
        writer.writerows(rows[sample] for sample in dataset.ids("all"))
    facts = {
        "table": str(dataset.root),
        "samples": len(rows),
        "used": {
            scenario_name(scenario): {
                "samples": count,
                "validation": validated(known, scenario_name(scenario)),
            }
            for scenario, count in used.items()
        },
        "validation_samples": known["validation_samples"],
        "classes": list(task.classes),
        "checkpoint_step": known["step"],
    }
    with whole(folder / "predictions.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path, used


def answered(method: Method, dataset: TableDataset) -> Iterator[tuple[Block, Scenario, Tensor]]:
    """All samples, in blocks: what those of a block have, and their (samples, outputs) answers from it, on the CPU."""
    for block in dataset.samples("all", list(dict.fromkeys(dataset.present("all")))):
        present = max(block.scenarios, key=len)
        ((_, found),) = method.predict_scenarios(inputs_of(block, method), [present], dataset.task.carry)
        yield block, present, found.cpu()


def inputs_of(block: Block, method: Method) -> dict[str, Observed]:
    """What is there of some samples, on the method's device and in its precision; token ids stay whole numbers."""
    weight = next(method.parameters())
    moved = {name: observed.to(weight.device) for name, observed in block.inputs.items()}
    return {
        name: replace(observed, values=observed.values.to(weight.dtype))
        if observed.values.is_floating_point()
        else observed
        for name, observed in moved.items()
    }


def validated(known: Mapping[str, Any], scenario: str) -> dict[str, float] | None:
    """By metric, what the weights score on validation in a scenario; None where no sample of it has one."""
    if scenario not in known["validation"]:
        return None
    return {"loss": known["validation"][scenario][ALL], **known["validation_scores"][scenario]}
