"""Predict every sample of a table from the modalities that it has, and write the predictions to files."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
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
from anysubset.tasks.prediction import Prediction


@dataclass(frozen=True)
class RowMember:
    """A trained method that predicts rows, alone or as one of several that are averaged.

    method: trained. dataset: the samples, prepared for this method; their targets are not used.
    checkpoint: facts of the checkpoint: `step`, `validation_samples`, by scenario `validation`, the mean loss, and
        `validation_scores`, the metrics over the set; and perhaps `spreads` and `conformal`.
    """

    method: Method
    dataset: TableDataset
    checkpoint: Mapping[str, Any]


@torch.no_grad()
def write_predictions(
    members: Sequence[RowMember],
    folder: Path,
    writer: str,
    coverage: float | None = None,
    entropy: bool = False,
) -> tuple[Path, Counter[Scenario]]:
    """Write `predictions.csv` and `predictions.json` into an existing folder.

    The CSV file has a row for each sample, in the order of the table: `id`, the modalities `used`, the `prediction`
    (the number, or the name of the likeliest class), and `probability_<class>`, the calibrated probability of each
    class. With a coverage there are also `in_set_<class>`, 1 for a class of the prediction set and 0 for another one,
    or `lower` and `upper`, the interval of a number. With `entropy` there is the entropy in bits of the probabilities.

    The calibrated probabilities, or the numbers, of several members are averaged; the prediction is the likeliest class
    of the mean.

    The JSON file says for every scenario how many samples were predicted from it, the validation scores of the weights
    in it, and for numbers the `spread` of the validation targets around their predictions.

    Args:
        members: one, or several with the same modalities, targets and samples.
        folder: where to write.
        writer: the command, recorded beside the files.
        coverage: share of the samples whose set or interval shall hold their target; None for no sets. Of
            one member only.
        entropy: whether there is a column for the entropy; of classes only.

    Returns:
        The path of the CSV file, and the number of samples that were predicted from each scenario.

    Raises:
        InputError: if a scenario has too few validation samples for the coverage.
        NonFiniteError: if predictions are NaN or infinite. The other samples are written, unless there are none.
    """
    method, dataset, checkpoint = members[0].method.eval(), members[0].dataset, members[0].checkpoint
    others = [values_by_sample(member) for member in members[1:]]
    task = dataset.task
    limits = {} if coverage is None else limits_of(checkpoint.get("conformal"), dataset.present("all"), coverage)
    rows: dict[str, list[str]] = {}
    used: Counter[Scenario] = Counter()
    unpredicted: dict[str, list[Scenario]] = {}
    for block, scenarios, outputs in predicted_blocks(method, dataset):
        outputs = outputs.float()
        missing = set(nonfinite(outputs, block.ids))
        missing |= {name for name in block.ids for other in others if name not in other}
        unpredicted |= {name: [own] for name, own in zip(block.ids, scenarios, strict=True) if name in missing}
        used.update(own for name, own in zip(block.ids, scenarios, strict=True) if name not in missing)
        values = values_of(task, outputs, scenarios)
        decisions = task.decision(outputs).tolist()
        if others:
            values = mean_values(values, others, block.ids)
            decisions = task.decision(values).tolist()
        probabilities = values.tolist() if task.classes else [[] for _ in block.ids]
        bits = (torch.special.entr(values).sum(dim=1) / math.log(2)).tolist() if entropy else []
        sets = prediction_sets(task, outputs, scenarios, limits) if limits else torch.empty(len(outputs), 0)
        added = sets.int().tolist() if task.classes else sets.tolist()
        for index, sample in enumerate(block.ids):
            decision = task.classes[decisions[index]] if task.classes else repr(decisions[index])
            numbers = map(repr, [*probabilities[index], *added[index], *bits[index : index + 1]])
            rows[sample] = [sample, scenario_name(scenarios[index]), decision, *numbers]
    for sample in unpredicted:
        del rows[sample]
    if not rows:
        raise nonfinite_error(unpredicted, dataset.noun, len(unpredicted))
    path, about = files_of(folder)
    names_of_sets = [f"in_set_{name}" for name in task.classes] or ["lower", "upper"]
    more = [*(names_of_sets if limits else []), *(["entropy"] if entropy else [])]
    with atomic_write(path, writer) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        sheet = csv.writer(file)
        sheet.writerow(["id", "used", "prediction", *(f"probability_{name}" for name in task.classes), *more])
        sheet.writerows(rows[sample] for sample in dataset.ids("all") if sample in rows)
    steps = [member.checkpoint["step"] for member in members]
    facts = {
        "table": str(dataset.root),
        "samples": len(rows),
        "used": {
            scenario_name(scenario): {
                "samples": count,
                "validation": mean_of([validation_scores(one.checkpoint, scenario_name(scenario)) for one in members]),
                **(mean_of([spread_in(one.checkpoint, scenario_name(scenario)) for one in members]) or {}),
            }
            for scenario, count in used.items()
        },
        "validation_samples": checkpoint["validation_samples"],
        "classes": list(task.classes),
        **({} if coverage is None else {"coverage": coverage}),
        "checkpoint_step": steps[0] if len(steps) == 1 else steps,
    }
    with atomic_write(about, writer) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if unpredicted:
        raise nonfinite_error(unpredicted, dataset.noun, len(rows) + len(unpredicted), written=path)
    return path, used


def files_of(folder: Path) -> tuple[Path, Path]:
    """Paths of the predictions of a table and of the JSON file about them."""
    return folder / "predictions.csv", folder / "predictions.json"


def values_of(task: Prediction, outputs: Tensor, scenarios: Sequence[Scenario]) -> Tensor:
    """What is averaged over members: calibrated probabilities (n, classes), or numbers (n, 1)."""
    return task.calibrated(outputs, scenarios).softmax(dim=1) if task.classes else outputs


def values_by_sample(member: RowMember) -> dict[str, Tensor]:
    """`values_of` each sample of a member by its id, without those whose output is NaN or infinite."""
    member.method.eval()
    values: dict[str, Tensor] = {}
    for block, scenarios, outputs in predicted_blocks(member.method, member.dataset):
        outputs = outputs.float()
        missing = set(nonfinite(outputs, block.ids))
        of_block = values_of(member.dataset.task, outputs, scenarios)
        values |= {name: row for name, row in zip(block.ids, of_block, strict=True) if name not in missing}
    return values


def mean_values(values: Tensor, others: Sequence[Mapping[str, Tensor]], ids: Sequence[str]) -> Tensor:
    """Mean of the values (n, ..) of the first member and those of the others; NaN for a sample that one lacks."""
    total = values
    for other in others:
        total = total + torch.stack([other.get(name, torch.full_like(values[0], torch.nan)) for name in ids])
    return total / (1 + len(others))


def mean_of(by_member: Sequence[Mapping[str, float] | None]) -> dict[str, float] | None:
    """Mean of each value over the members that have it; None if a member has none at all."""
    named = [values for values in by_member if values is not None]
    if len(named) < len(by_member):
        return None
    names = [name for name in named[0] if all(name in values for values in named)]
    return {name: fmean(values[name] for values in named) for name in names}


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
