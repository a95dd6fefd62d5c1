"""A trained run: its experiment, task and method with the selected weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from anysubset.datasets.table import create_task, signature_in
from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment
from anysubset.experiments.settings import Experiment
from anysubset.methods.method import Method
from anysubset.system import tensor_file
from anysubset.system.devices import device_of
from anysubset.system.model_file import is_model_file, run_folder_of
from anysubset.system.run_files import SELECTED, TRAINING_SET, read_object
from anysubset.system.run_folder import RunFolder, weights_hash
from anysubset.tables.signature import Signature
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.segmentation import VALIDATED, Segmentation
from anysubset.tasks.temperatures import Temperatures
from anysubset.training.divergence import check_finite
from anysubset.training.run import check_same
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork
from anysubset.workflows.own import create_method


@dataclass(frozen=True)
class Stored:
    """What a run folder holds, before a method is made of it.

    Args:
        experiment: its settings.
        tensors: the weights that validation selected, by name. facts: beside them.
        signature: modalities and statistics of the training table; None for volumes.
        weights: hash of the file of the weights.
    """

    experiment: Experiment
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    signature: Signature | None
    weights: str

    @property
    def task(self) -> Segmentation | Prediction:
        """What its data ask for."""
        return create_task(self.experiment.data, self.experiment.task, self.signature)


@dataclass(frozen=True)
class Trained:
    """A trained run.

    Args:
        experiment: its settings; `task.threshold` holds the thresholds that validation chose.
        task: what its data ask for, with the temperatures that validation fitted.
        method: with the weights that validation selected, in evaluation mode.
        facts: of the checkpoint: `step`, `validation` by scenario, and more.
        signature: modalities and statistics of the training table; None for volumes.
        weights: hash of the file of the weights.
        path: the run folder, or the model file.
        training_set: ranges of volumes, voxels and intensities over the training patients; None for a table, or a run
            of an earlier version.
    """

    experiment: Experiment
    task: Segmentation | Prediction
    method: Method
    facts: Mapping[str, Any]
    signature: Signature | None
    weights: str
    path: Path
    training_set: Mapping[str, Any] | None = None

    @property
    def exported(self) -> bool:
        """Whether it was opened from a model file, which names neither the training data nor their samples."""
        return is_model_file(self.path)

    @property
    def sources(self) -> list[Path]:
        """The folder or file of the training data; none for a model file."""
        return [] if self.exported else [Path(self.experiment.data.root)]


def open_run(
    run: FilePath,
    *,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
) -> Trained:
    """Load a trained run with its experiment, task and checkpoint facts. Arguments are those of `load`.

    Raises:
        InputError: if the folder or file holds no run, a checkpoint of another experiment, weights that are not finite,
            or the weights of an early stage of training, or no thresholds yet that are chosen on validation.
    """
    with run_folder_of(Path(run)) as folder:
        opened = open_folder(folder, method, network, device)
    return replace(opened, path=Path(run))


def open_folder(folder: Path, method: OwnMethod, network: OwnNetwork, device: str) -> Trained:
    """Load the trained run in a folder; see `open_run`."""
    stored = read_stored(folder)
    experiment, facts = stored.experiment, stored.facts
    if experiment.task.threshold == VALIDATED:
        experiment = replace(experiment, task=replace(experiment.task, threshold=chosen_thresholds(facts, folder)))
    task = create_task(experiment.data, experiment.task, stored.signature)
    task = replace(task, temperatures=Temperatures(**facts.get("temperatures", {})))
    trained, _ = create_method(experiment.method, task, None, method, network)
    tensor_file.load_module(stored.tensors, trained, RunFolder(folder).best, trained.prediction_state())
    check_finite(trained, None, RunFolder(folder).best)
    training_set = read_object(RunFolder(folder).training_set, TRAINING_SET) or None
    trained = trained.to(device_of(device)).eval()
    return Trained(experiment, task, trained, facts, stored.signature, stored.weights, folder, training_set)


def read_stored(folder: Path) -> Stored:
    """Read what a run folder holds.

    Raises:
        InputError: if the folder holds no run, a checkpoint of another experiment, or the weights of an early stage.
    """
    experiment = read_run_experiment(folder)
    # Before they are loaded: where a training replaces them in between, scores count as those of the earlier weights.
    weights = weights_hash(folder)
    tensors, facts = tensor_file.load(RunFolder(folder).best, SELECTED)
    check_same(experiment, facts["experiment"], RunFolder(folder).best)
    if "stage" in facts:
        raise InputError(
            f"{folder} cannot predict yet, since only its stages up to {facts['stage']!r} are trained: continue it "
            f"with `anysubset fit --resume --run {folder}`."
        )
    return Stored(experiment, tensors, facts, signature_in(RunFolder(folder).signature, experiment.data), weights)


def check_output_of_model(run: Path, output: FilePath | None) -> None:
    """Raise InputError if no output folder is named and the run is a model file, into which nothing is written."""
    if output is None and is_model_file(run):
        raise InputError(f"{run} is a model file, which is not changed: name a folder for the results with --output.")


def chosen_thresholds(facts: Mapping[str, Any], folder: Path) -> dict[str, float]:
    """The thresholds by region that validation chose. Raises InputError if the training has not come to its end.

    Args:
        facts: of the checkpoint.
        folder: of the run.
    """
    if "thresholds" not in facts:
        raise InputError(
            f"{folder} has no thresholds yet, which are chosen when the training ends (task.threshold {VALIDATED}): "
            f"continue it with `anysubset fit --resume --run {folder}`."
        )
    return dict(facts["thresholds"])
