"""Predict from the files of patients or of a table, and write the predictions."""

from collections.abc import Sequence
from pathlib import Path

from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.evaluation import rows as of_rows
from anysubset.scenarios import scenario_name
from anysubset.system.cluster import check_backend
from anysubset.system.devices import device_of
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.segmentation import Segmentation
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report
from anysubset.workflows.predicting_patients import Request, predict_patients
from anysubset.workflows.prediction_folder import Output, check_apart
from anysubset.workflows.trained import Trained, check_output_of_model, open_run
from anysubset.workflows.whole_groups import check_groups


def predict_files(
    runs: FilePath | Sequence[FilePath],
    inputs: FilePath | Sequence[FilePath],
    output: FilePath | None,
    overwrite: bool,
    coverage: float | None,
    probabilities: bool,
    entropy: bool,
    jobs: int | None,
    backend: str | None,
    method: OwnMethod,
    network: OwnNetwork,
    device: str,
    report: Report,
    warn: Report,
    progress: Progress,
) -> list[Path]:
    """Predict from files; see `anysubset.predict`. Returns the files that were written."""
    of_runs, paths = paths_of(runs), paths_of(inputs)
    if len(of_runs) > 1 and output is None:
        raise InputError("Several runs predict together: name a folder for their predictions with --output.")
    check_output_of_model(of_runs[0], output)
    in_processes = jobs is not None or backend is not None
    if in_processes:
        check_jobs(jobs, backend, device, method, network)
    own_device = "cpu" if in_processes else device
    trained = [open_run(run, method=method, network=network, device=own_device) for run in of_runs]
    check_agreement(trained)
    of_volumes = trained[0].signature is None
    folder = Path(output) if output is not None else of_runs[0] / "predictions"
    check_apart(folder, [*paths, *(source for run in trained for source in run.sources)], below=of_volumes)
    names = " ".join(str(run.resolve()) for run in of_runs)
    into = Output(folder, f"anysubset predict {names}", overwrite)
    if of_volumes:
        if coverage is not None:
            raise InputError("A coverage is for sets of classes and intervals of numbers, not for masks of volumes.")
        request = Request(tuple(of_runs), into, probabilities, entropy)
        return predict_patients(request, trained, paths, jobs, backend, report, warn, progress)
    if in_processes:
        raise InputError(
            "Processes (--jobs, --backend) are for patients; the rows of a table are predicted at once: leave it out."
        )
    if coverage is not None and len(trained) > 1:
        raise InputError("A coverage is that of one run, whose validation it comes from: give one run.")
    if entropy and not trained[0].signature.classes:  # type: ignore[union-attr]
        raise InputError("An entropy is that of probabilities of classes, and the run predicts numbers: leave it out.")
    if len(paths) != 1:
        raise InputError(f"Give one table, not {len(paths)}: the predictions of several would overwrite each other.")
    return [predict_table(trained, paths[0], into, coverage, entropy, report)]


def paths_of(paths: FilePath | Sequence[FilePath]) -> list[Path]:
    """A list of paths, of one or several. Raises InputError if there is none."""
    listed = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not listed:
        raise InputError("Nothing to predict: give a run, and patients or a table.")
    return listed


def check_jobs(jobs: int | None, backend: str | None, device: str, method: OwnMethod, network: OwnNetwork) -> None:
    """Raise InputError unless patients can be predicted in several processes."""
    if backend is not None:
        check_backend(backend)
        if jobs is not None:
            raise InputError("--jobs is for processes on this machine: leave it out, or leave out --backend.")
    elif jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}.")
    name = "--jobs" if backend is None else "--backend"
    if device_of(device).type != "cpu":
        raise InputError(f"Processes ({name}) are for the CPU: add --device cpu, or leave out {name}.")
    if method is not None or network is not None:
        raise InputError(f"A method or network of your own predicts in one process: leave out {name.strip('-')}.")


def check_agreement(trained: Sequence[Trained]) -> None:
    """Raise InputError unless the runs predict the same from the same modalities, so that they can be averaged."""
    first, *others = trained
    for other in others:
        for what, of_first, of_other in zip(
            ("kind of data", "modalities", "regions or classes", "task.smallest"),
            described(first),
            described(other),
            strict=True,
        ):
            if of_first != of_other:
                raise InputError(
                    f"Runs that predict together need the same {what}: {first.path} has {of_first}, {other.path} "
                    f"has {of_other}."
                )


def described(trained: Trained) -> tuple[str, str, str, str]:
    """In words, what must be the same in runs that predict together."""
    task = trained.task
    modalities = ", ".join(task.modalities)
    if isinstance(task, Segmentation):
        regions = ", ".join(f"{name} {list(values)}" for name, values in task.regions.items())
        return "volumes", modalities, regions, str(dict(task.smallest))
    return "a table", modalities, ", ".join(task.classes) or "numbers", ""


def predict_table(
    trained: Sequence[Trained], table: Path, output: Output, coverage: float | None, entropy: bool, report: Report
) -> Path:
    """Write predictions.csv, with a row for each sample of a table, and predictions.json. Returns the CSV file."""
    output.check(of_rows.files_of(output.folder))
    members = [row_member(run, table, report) for run in trained]
    output.folder.mkdir(parents=True, exist_ok=True)
    path, counts = of_rows.write_predictions(members, output.folder, output.writer, coverage, entropy)
    for scenario, count in counts.items():
        report(f"{path}  {count} from {', '.join(scenario)}")
        if not all(scenario_name(scenario) in run.facts["validation"] for run in trained):
            report(f"note: no validation sample has {', '.join(scenario)}: how good these predictions are is unknown")
    return path


def row_member(trained: Trained, table: Path, report: Report) -> of_rows.RowMember:
    """A run as a method that predicts the rows of a table, which are prepared as in its training."""
    experiment = trained.experiment.at(str(table), groups=trained.method.unit == "group")
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature, unlabelled=True)
    assert isinstance(dataset, TableDataset)
    dataset = dataset.calibrated(trained.task.temperatures)
    trained.method.check_inputs(dataset.loaded_inputs)
    dataset.prepare("all")
    check_groups(dataset, dataset.ids("all"), trained.method, report)
    return of_rows.RowMember(trained.method, dataset, trained.facts)
