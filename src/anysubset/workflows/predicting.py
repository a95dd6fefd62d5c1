"""Predict from the files of patients or of a table, and write the predictions."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.evaluation import patients as of_patients
from anysubset.evaluation import rows as of_rows
from anysubset.evaluation.finite import NonFiniteError, nonfinite_error
from anysubset.scenarios import scenario_name
from anysubset.system.written import check_replaceable
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.patients import survey
from anysubset.volumes.working_grid import resampling_of
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report
from anysubset.workflows.trained import Trained, open_run
from anysubset.workflows.whole_groups import check_groups


def predict_files(
    run: FilePath,
    inputs: FilePath | Sequence[FilePath],
    output: FilePath | None,
    overwrite: bool,
    coverage: float | None,
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
    check_apart(folder, [*paths, Path(trained.experiment.data.root)], below=trained.signature is None)
    writer = f"anysubset predict {Path(run).resolve()}"
    if trained.signature is None:
        if coverage is not None:
            raise InputError("A coverage is for sets of classes and intervals of numbers, not for masks of volumes.")
        return predict_patients(trained, paths, Output(folder, writer, overwrite), report, progress)
    if len(paths) != 1:
        raise InputError(f"Give one table, not {len(paths)}: the predictions of several would overwrite each other.")
    return [predict_table(trained, paths[0], Output(folder, writer, overwrite), coverage, report)]


@dataclass(frozen=True)
class Output:
    """Where predictions are written.

    folder: for all files.
    writer: the command, recorded beside the files; it may replace what it wrote itself.
    overwrite: whether it may also replace predictions of another run.
    """

    folder: Path
    writer: str
    overwrite: bool

    def check(self, files: Iterable[Path]) -> None:
        """Raise InputError if the folder is a file, or one of the files to be written must not be replaced."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: name a folder for the predictions with --output.")
        for file in files:
            check_replaceable(file, self.writer, self.overwrite)


def check_apart(folder: Path, sources: Iterable[Path], below: bool) -> None:
    """Raise InputError if a folder of predictions is one that data are read from.

    A mask in the folder of a patient would be read as its label, and one beside the patients as another patient.

    Args:
        folder: of the predictions.
        sources: folders or files of data.
        below: whether data are also read from folders in those, as patients are.
    """
    for source in sources:
        inside = folder.resolve().is_relative_to(source.resolve())
        if source.is_dir() and inside and (below or folder.resolve() == source.resolve()):
            raise InputError(
                f"Predictions in {folder} would be read as data, because it is in {source}: choose another --output."
            )


def predict_patients(
    trained: Trained, paths: Sequence[Path], output: Output, report: Report, progress: Progress
) -> list[Path]:
    """Write a mask and a JSON file for each patient. Returns the masks.

    Raises NonFiniteError at the end if predictions are NaN or infinite; those of the other patients are written.
    """
    surveys = [survey(path) for path in paths]
    patients = [patient for one in surveys for patient in one.patients]
    for line in dict.fromkeys(line for one in surveys for line in one.passed_over):
        report(f"note: {line}")
    for name, count in Counter(patient.id for patient in patients).items():
        if count > 1:
            raise InputError(f"{count} patients are called {name!r}: their masks would overwrite each other.")
    faults = [fault for patient in patients for fault in patient.faults]
    if faults:
        raise InputError(faults[0] + (f" There are {len(faults) - 1} more faults." if len(faults) > 1 else ""))
    task = trained.task
    assert isinstance(task, Segmentation)
    output.check(file for patient in patients for file in of_patients.files_of(output.folder, patient.id))
    output.folder.mkdir(parents=True, exist_ok=True)
    resampling = resampling_of(trained.experiment.data)
    masks = []
    unpredicted = {}
    for patient in progress(patients, "Predicting"):
        facts, writer = trained.facts, output.writer
        try:
            mask = of_patients.predict(trained.method, task, patient, output.folder, facts, writer, resampling)
        except NonFiniteError:
            present = set(patient.sources)
            unpredicted[patient.id] = [tuple(name for name in task.modalities if name in present)]
            continue
        masks.append(mask)
        report(f"{masks[-1]}  from {', '.join(name for name in task.modalities if name in patient.sources)}")
    if unpredicted:
        raise nonfinite_error(unpredicted, "patients", len(patients), written=output.folder if masks else None)
    return masks


def predict_table(trained: Trained, table: Path, output: Output, coverage: float | None, report: Report) -> Path:
    """Write predictions.csv, with a row for each sample of a table, and predictions.json. Returns the CSV file."""
    output.check(of_rows.files_of(output.folder))
    experiment = trained.experiment.at(str(table), groups=trained.method.unit == "group")
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature, unlabelled=True)
    assert isinstance(dataset, TableDataset)
    dataset = dataset.calibrated(trained.task.temperatures)
    trained.method.check_inputs(dataset.loaded_inputs)
    dataset.prepare("all")
    check_groups(dataset, dataset.ids("all"), trained.method, report)
    output.folder.mkdir(parents=True, exist_ok=True)
    path, counts = of_rows.write_predictions(
        trained.method, dataset, output.folder, trained.facts, output.writer, coverage
    )
    for scenario, count in counts.items():
        report(f"{path}  {count} from {', '.join(scenario)}")
        if scenario_name(scenario) not in trained.facts["validation"]:
            report(f"note: no validation sample has {', '.join(scenario)}: how good these predictions are is unknown")
    return path
