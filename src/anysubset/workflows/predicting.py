"""Predict from the files of patients or of a table, and write the predictions."""

from collections.abc import Sequence
from pathlib import Path

from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.evaluation import rows as of_rows
from anysubset.scenarios import scenario_name
from anysubset.system.devices import device_of
from anysubset.tables.dataset import TableDataset
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report
from anysubset.workflows.predicting_patients import Request, predict_patients
from anysubset.workflows.prediction_folder import Output, check_apart
from anysubset.workflows.trained import Trained, open_run
from anysubset.workflows.whole_groups import check_groups


def predict_files(
    run: FilePath,
    inputs: FilePath | Sequence[FilePath],
    output: FilePath | None,
    overwrite: bool,
    coverage: float | None,
    jobs: int | None,
    method: OwnMethod,
    network: OwnNetwork,
    device: str,
    report: Report,
    warn: Report,
    progress: Progress,
) -> list[Path]:
    """Predict from files; see `anysubset.predict`. Returns the files that were written."""
    if jobs is not None:
        check_jobs(jobs, device, method, network)
    trained = open_run(run, method=method, network=network, device=device if jobs is None else "cpu")
    paths = [Path(inputs)] if isinstance(inputs, str | Path) else [Path(path) for path in inputs]
    folder = Path(output) if output is not None else Path(run) / "predictions"
    check_apart(folder, [*paths, Path(trained.experiment.data.root)], below=trained.signature is None)
    into = Output(folder, f"anysubset predict {Path(run).resolve()}", overwrite)
    if trained.signature is None:
        if coverage is not None:
            raise InputError("A coverage is for sets of classes and intervals of numbers, not for masks of volumes.")
        return predict_patients(Request((Path(run),), into), [trained], paths, jobs, report, warn, progress)
    if jobs is not None:
        raise InputError(
            "Processes (--jobs) are for patients; the rows of a table are predicted at once: leave it out."
        )
    if len(paths) != 1:
        raise InputError(f"Give one table, not {len(paths)}: the predictions of several would overwrite each other.")
    return [predict_table(trained, paths[0], into, coverage, report)]


def check_jobs(jobs: int, device: str, method: OwnMethod, network: OwnNetwork) -> None:
    """Raise InputError unless patients can be predicted in several processes."""
    if jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}.")
    if device_of(device).type != "cpu":
        raise InputError("Processes (--jobs) are for the CPU: add --device cpu, or leave out --jobs.")
    if method is not None or network is not None:
        raise InputError("A method or network of your own predicts in one process: leave out jobs.")


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
