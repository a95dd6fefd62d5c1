"""Predict every sample of a table from the modalities that it has, and write the predictions to files."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Observed, present_by_sample
from anysubset.evaluation.conformal import limits_of, prediction_sets
from anysubset.evaluation.finite import nonfinite, nonfinite_error
from anysubset.evaluation.groups import check_count
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import ALL
from anysubset.system.files import atomic_write
from anysubset.tables.block import Block
from anysubset.tables.dataset import TableDataset


@torch.no_grad()
def write_predictions(
    method: Method,
    dataset: TableDataset,
    folder: Path,
    checkpoint: Mapping[str, Any],
    writer: str,
    coverage: float | None = None,
) -> tuple[Path, Counter[Scenario]]:
    """Write `predictions.csv` and `predictions.json` into an existing folder.

    The CSV file has a row for each sample, in the order of the table: `id`, the modalities `used`, the `prediction`
    (the number, or the name of the likeliest class), and `probability_<class>`, the calibrated probability of each
    class. With a coverage there are also `in_set_<class>`, 1 for a class of the prediction set and 0 for another one,
    or `lower` and `upper`, the interval of a number.

    The JSON file says for every scenario how many samples were predicted from it, the validation scores of the weights
    in it, and for numbers the `spread` of the validation targets around their predictions.

    Args:
        method: trained.
        dataset: the samples; their targets are not used.
        folder: where to write.
        checkpoint: facts of the checkpoint: `step`, `validation_samples`, by scenario `validation`, the mean loss, and
            `validation_scores`, the metrics over the set; and perhaps `spreads` and `conformal`.
        writer: the command, recorded beside the files.
        coverage: share of the samples whose set or interval shall hold their target; None for no sets.

    Returns:
        The path of the CSV file, and the number of samples that were predicted from each scenario.

    Raises:
        InputError: if a scenario has too few validation samples for the coverage.
        NonFiniteError: if predictions are NaN or infinite. The other samples are written, unless there are none.
    """
    method.eval()
    task = dataset.task
    limits = {} if coverage is None else limits_of(checkpoint.get("conformal"), dataset.present("all"), coverage)
    rows: dict[str, list[str]] = {}
    used: Counter[Scenario] = Counter()
    unpredicted: dict[str, list[Scenario]] = {}
    for block, scenarios, outputs in predicted_blocks(method, dataset):
        outputs = outputs.float()
        missing = set(nonfinite(outputs, block.ids))
        unpredicted |= {name: [own] for name, own in zip(block.ids, scenarios, strict=True) if name in missing}
        used.update(own for name, own in zip(block.ids, scenarios, strict=True) if name not in missing)
        calibrated = task.calibrated(outputs, scenarios)
        probabilities = calibrated.softmax(dim=1).tolist() if task.classes else [[] for _ in block.ids]
        sets = prediction_sets(task, outputs, scenarios, limits) if limits else torch.empty(len(outputs), 0)
        added = sets.int().tolist() if task.classes else sets.tolist()
        decisions = task.decision(outputs).tolist()
        for index, sample in enumerate(block.ids):
            decision = task.classes[decisions[index]] if task.classes else repr(decisions[index])
            numbers = map(repr, [*probabilities[index], *added[index]])
            rows[sample] = [sample, scenario_name(scenarios[index]), decision, *numbers]
    for sample in unpredicted:
        del rows[sample]
    if not rows:
        raise nonfinite_error(unpredicted, dataset.noun, len(unpredicted))
    path, about = files_of(folder)
    names_of_sets = [f"in_set_{name}" for name in task.classes] or ["lower", "upper"]
    set_columns = names_of_sets if limits else []
    with atomic_write(path, writer) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.writer(file)
        sheet.writerow(["id", "used", "prediction", *(f"probability_{name}" for name in task.classes), *set_columns])
        sheet.writerows(rows[sample] for sample in dataset.ids("all") if sample in rows)
    facts = {
        "table": str(dataset.root),
        "samples": len(rows),
        "used": {
            scenario_name(scenario): {
                "samples": count,
                "validation": validation_scores(checkpoint, scenario_name(scenario)),
                **spread_in(checkpoint, scenario_name(scenario)),
            }
            for scenario, count in used.items()
        },
        "validation_samples": checkpoint["validation_samples"],
        "classes": list(task.classes),
        **({} if coverage is None else {"coverage": coverage}),
        "checkpoint_step": checkpoint["step"],
    }
    with atomic_write(about, writer) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if unpredicted:
        raise nonfinite_error(unpredicted, dataset.noun, len(rows) + len(unpredicted), written=path)
    return path, used


def files_of(folder: Path) -> tuple[Path, Path]:
    """Paths of the predictions of a table and of the JSON file about them."""
    return folder / "predictions.csv", folder / "predictions.json"


def predicted_blocks(method: Method, dataset: TableDataset) -> Iterator[tuple[Block, Sequence[Scenario], Tensor]]:
    """Predict all samples in blocks: of samples with the same modalities, or one group each for a method of groups.

    Yields:
        The block, the modalities of each of its samples, and the outputs (samples, outputs) on the CPU.
    """
    scenarios = list(dict.fromkeys(dataset.present("all")))
    for block in dataset.samples("all", scenarios, unit=method.unit):
        present = present_by_sample(block.inputs, len(block.ids), dataset.task.modalities)
        inputs = inputs_of(block, method)
        if method.unit == "group":
            outputs = dataset.task.carry(method.predict, inputs)
        else:
            ((_, outputs),) = method.predict_scenarios(inputs, [present[0]], dataset.task.carry)
        check_count(outputs, len(block.ids))
        yield block, present, outputs.cpu()


def inputs_of(block: Block, method: Method) -> dict[str, Observed]:
    """Inputs of a block on the method's device and in its precision; token ids stay whole numbers."""
    weight = next(method.parameters())
    moved = {name: observed.to(weight.device) for name, observed in block.inputs.items()}
    return {
        name: replace(observed, values=observed.values.to(weight.dtype))
        if observed.values.is_floating_point()
        else observed
        for name, observed in moved.items()
    }


def spread_in(checkpoint: Mapping[str, Any], scenario: str) -> dict[str, float]:
    """The `spread` of numbers that are predicted from a scenario; empty for classes, and without a calibration."""
    spreads = checkpoint.get("spreads")
    return {} if spreads is None else {"spread": spreads["by_scenario"].get(scenario, spreads["overall"])}


def validation_scores(checkpoint: Mapping[str, Any], scenario: str) -> dict[str, float] | None:
    """Validation scores of the weights in a scenario, by metric; None if no validation sample is eligible for it."""
    if scenario not in checkpoint["validation"]:
        return None
    return {"loss": checkpoint["validation"][scenario][ALL], **checkpoint["validation_scores"][scenario]}
