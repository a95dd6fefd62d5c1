"""Calibration of the selected weights on validation when the training ends (`train.calibrate`)."""

from collections.abc import Callable
from dataclasses import asdict

from anysubset.datasets.dataset import Dataset
from anysubset.evaluation.temperatures import class_temperatures, predicted_rows
from anysubset.methods.method import Method
from anysubset.scoring.scores import ALL
from anysubset.system import tensor_file
from anysubset.tables.dataset import TableDataset
from anysubset.training.checkpoint import load_selected
from anysubset.training.run import Run


def calibrate(method: Method, dataset: Dataset, run: Run, report: Callable[[str], None]) -> None:
    """Fit temperatures to the predictions of the selected weights on validation, and store them beside the weights.

    The method keeps the weights that it has, which may be of a later step.

    Args:
        method: trained.
        dataset: with the split `val`.
        run: the open run folder, with the selected weights.
        report: called with one line about the temperatures.
    """
    if run.experiment.train.calibrate is False or not isinstance(dataset, TableDataset) or not dataset.task.classes:
        return
    before = {name: value.clone() for name, value in method.state_dict().items()}
    tensors, facts = load_selected(run, method)
    temperatures = class_temperatures(predicted_rows(method, dataset, "val"))
    method.load_state_dict(before)
    own = ", ".join(f"{name} {of[ALL]:.3g}" for name, of in temperatures.by_scenario.items())
    report(f"temperatures fitted on validation: {own}{', others ' * bool(own)}{temperatures.overall[ALL]:.3g}")
    if run.writes:
        tensor_file.save(run.best, tensors, facts | {"temperatures": asdict(temperatures)})
