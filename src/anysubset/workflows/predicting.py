"""Predict from the files of patients or of a table, and write the predictions."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.evaluation.patients import predict as predict_patient
from anysubset.evaluation.rows import write_predictions
from anysubset.scenarios import scenario_name
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.patients import find_patients
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report
from anysubset.workflows.trained import Trained, open_run


def predict_files(
    run: FilePath,
    inputs: FilePath | Sequence[FilePath],
    output: FilePath | None,
    method: OwnMethod,
    network: OwnNetwork,
    device: str,
    report: Report,
    progress: Progress,
) -> list[Path]:
    """Predict from files; see `anysubset.predict`. Returns the files that were written."""
    trained = open_run(run, method=method, network=network, device=device)
    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    folder = Path(output) if output is not None else Path(run) / "predictions"
    if trained.signature is None:
        return predict_patients(trained, paths, folder, report, progress)
    if len(paths) != 1:
        raise InputError(f"Give one table, not {len(paths)}: the predictions of several would overwrite each other.")
    return [predict_table(trained, paths[0], folder, report)]


def predict_patients(
    trained: Trained, paths: Sequence[Path], folder: Path, report: Report, progress: Progress
) -> list[Path]:
    """Write a mask and a JSON file for each patient. Returns the masks."""
    patients = [patient for path in paths for patient in find_patients(path)]
    for name, count in Counter(patient.id for patient in patients).items():
        if count > 1:
            raise InputError(f"{count} patients are called {name!r}: their masks would overwrite each other.")
    task = trained.task
    assert isinstance(task, Segmentation)
    folder.mkdir(parents=True, exist_ok=True)
    masks = []
    for patient in progress(patients, "Predicting"):
        masks.append(predict_patient(trained.method, task, patient, folder, trained.facts))
        report(f"{masks[-1]}  from {', '.join(name for name in task.modalities if name in patient.sources)}")
    return masks


def predict_table(trained: Trained, table: Path, folder: Path, report: Report) -> Path:
    """Write predictions.csv, with a row for each sample of a table, and predictions.json. Returns the CSV file."""
    experiment = trained.experiment.at(str(table), groups=trained.method.unit == "group")
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature, unlabelled=True)
    assert isinstance(dataset, TableDataset)
    trained.method.check_inputs(dataset.loaded_inputs)
    dataset.prepare("all")
    folder.mkdir(parents=True, exist_ok=True)
    path, counts = write_predictions(trained.method, dataset, folder, trained.facts)
    for scenario, count in counts.items():
        report(f"{path}  {count} from {', '.join(scenario)}")
        if scenario_name(scenario) not in trained.facts["validation"]:
            report(f"note: no validation sample has {', '.join(scenario)}: how good these predictions are is unknown")
    return path
