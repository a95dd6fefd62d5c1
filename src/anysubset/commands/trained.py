"""A trained run, opened: what several commands begin with."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anysubset.commands.given import Given
from anysubset.experiments.files import read_run_experiment
from anysubset.experiments.settings import Experiment
from anysubset.system.devices import device_of

if TYPE_CHECKING:
    from anysubset.methods import Method
    from anysubset.tables.signature import Signature
    from anysubset.tasks.prediction import Prediction
    from anysubset.tasks.segmentation import Segmentation


class Opened(NamedTuple):
    """A trained run: its experiment, its task, the method with the best weights, the facts of that checkpoint, and what
    it knows of its table (the signature), None for volumes.
    """

    experiment: Experiment
    task: "Segmentation | Prediction"
    method: "Method"
    facts: Given
    signature: "Signature | None"


def open_run(folder: Path, device: str) -> Opened:
    """A trained run.

    Raises:
        InputError: if the folder is no run, or holds a checkpoint of another experiment.
    """
    from anysubset.datasets.table import create_task, signature_in
    from anysubset.methods import method_of
    from anysubset.system import tensor_file
    from anysubset.training.run import best_of, check_same, signature_path

    experiment = read_run_experiment(folder)
    tensors, facts = tensor_file.load(best_of(folder))
    check_same(experiment, facts["experiment"], best_of(folder))
    signature = signature_in(signature_path(folder), experiment.data)
    task = create_task(experiment.data, experiment.model, signature)
    method = method_of(experiment.method, task)
    tensor_file.load_module(tensors, method, best_of(folder))
    return Opened(experiment, task, method.to(device_of(device)), facts, signature)
