"""Calibration of the selected weights on validation when the training ends (`train.calibrate`)."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from anysubset.datasets.dataset import Dataset
from anysubset.evaluation.conformal import conformal_scores
from anysubset.evaluation.spreads import spreads_of
from anysubset.evaluation.temperatures import (
    class_temperatures,
    predicted_rows,
    predicted_voxels,
    region_temperatures,
)
from anysubset.methods.method import Method
from anysubset.scoring.scores import ALL
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.temperatures import Temperatures
from anysubset.training.checkpoint import selected_weights
from anysubset.training.run import Run
from anysubset.volumes.dataset import Volumes


def calibrate(method: Method, dataset: Dataset, run: Run, report: Callable[[str], None]) -> None:
    """Calibrate the predictions of the selected weights on validation, and store the result beside the weights.

    It is `temperatures` of classes and regions, `spreads` of numbers, and `conformal`, from which sets of classes and
    intervals of numbers are made. The method keeps the weights that it has, which may be of a later step.

    Args:
        method: trained.
        dataset: with the split `val`.
        run: the open run folder, with the selected weights.
        report: called with one line about the result.
    """
    asked = run.experiment.train.calibrate
    if not (isinstance(dataset, TableDataset) if asked is None else asked):
        return
    with selected_weights(run, method) as facts:
        facts |= calibration_of(method, dataset, run.experiment.seed, report)


def calibration_of(method: Method, dataset: Dataset, seed: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Facts of the calibration on the split `val`, by name. seed: decides which voxels are used."""
    if isinstance(dataset, Volumes):
        voxels, patients = predicted_voxels(method, dataset, "val", seed)
        temperatures = region_temperatures(voxels, patients, list(dataset.task.regions))
        report(f"temperatures fitted on validation: {described(temperatures)}")
        return {"temperatures": asdict(temperatures)}
    assert isinstance(dataset, TableDataset)
    predicted = predicted_rows(method, dataset, "val")
    if not dataset.task.classes:
        if "error" in method.undefined_metrics:  # A method that predicts signs has no residuals.
            return {}
        return {"spreads": spreads_of(predicted), "conformal": conformal_scores(predicted, dataset.task)}
    temperatures = class_temperatures(predicted)
    report(f"temperatures fitted on validation: {described(temperatures)}")
    conformal = conformal_scores(predicted, replace(dataset.task, temperatures=temperatures))
    return {"temperatures": asdict(temperatures), "conformal": conformal}


def described(temperatures: Temperatures) -> str:
    """The temperature of all scenarios, and the smallest and largest of a single one, by region.

    >>> described(Temperatures({"all": 1.5}, {"text": {"all": 1.2}, "audio": {"all": 2.0}}))
    '1.5 of all scenarios, 1.2 (text) to 2 (audio)'
    """
    lines = []
    for region, overall in temperatures.overall.items():
        own = {name: of_scenario[region] for name, of_scenario in temperatures.by_scenario.items()}
        least, most = min(own, key=lambda name: own[name], default=""), max(own, key=lambda name: own[name], default="")
        span = f", {own[least]:.3g} ({least}) to {own[most]:.3g} ({most})" if own else ""
        lines.append(f"{'' if region == ALL else f'{region} '}{overall:.3g} of all scenarios{span}")
    return "; ".join(lines)
