"""The Python interface: train, score, predict with, export, inspect and report runs. Commands call the same functions.

    import anysubset

    run = anysubset.fit(["lgg.yaml", "gmd_common.yaml"], run="runs/lgg", report=print)
    scores = anysubset.evaluate(run.folder, split="test").scores
    method = anysubset.load(run.folder)
    logits = method.predict({"flair": flair, "t1": t1})

Functions return values and print nothing; pass `report=print` to see what they do. Wrong input raises InputError.
torch and MONAI are imported when a function needs them, so that `import anysubset` takes no time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anysubset.errors import InputError
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report, Source, silent, without_bar

if TYPE_CHECKING:
    from anysubset.methods.method import Method
    from anysubset.report.groups import RunGroup
    from anysubset.report.pictures import Gallery
    from anysubset.workflows.evaluating import Evaluation
    from anysubset.workflows.fitting import Fit

REPORT = "anysubset report"  # Writes report.html.

# --------------------------------------------------------------------------------------------------- training


def fit(
    experiment: Source | None = None,
    *,
    run: FilePath,
    method: "str | type[Method] | Method | None" = None,
    network: OwnNetwork = None,
    resume: bool = False,
    init: FilePath | None = None,
    report: Report = silent,
    progress: Callable[..., Iterable[int]] = without_bar,
    **settings: Any,
) -> "Fit":
    """Train an experiment into a run folder. The test split is not looked at.

    Args:
        experiment: YAML file or files, settings, or an Experiment. If None, the defaults; with `resume`, the settings
            of the run in the folder, if there is one.
        run: the run folder to write.
        method: the name of a method, or a method of your own: a subclass of `anysubset.methods.method.Method`, or an
            instance for the same task. Its options are settings too: `**{"method.gradients": "gmd"}`.
        network: a network of your own, for a method that trains any network on cases (`gmd`, `sharing`, `dropout`,
            `full`): an `anysubset.models.network.Network`, or a function of the task that makes one, so that the seed
            decides its weights. A run records the names of both; pass them again to resume or load it.
        resume: continue the run in the folder, if there is one; all settings must agree with those of the run, except
            for paths and others without influence on the result. Otherwise a folder that holds a run is refused.
        init: a run folder or model file whose weights training starts from, with the same, fewer or more modalities,
            and other regions or classes; `report` gets a line on what was taken and what is fresh. The run does not
            need it afterwards.
        report: called with one line at a time.
        progress: wraps the step numbers and the count of steps done before, to show a progress bar.
        **settings: override those of `experiment`, nested (`train={"steps": 5}`) or dotted (`**{"train.steps": 5}`).

    Raises:
        InputError: if the settings or the data are faulty, or the folder holds another run.
    """
    from anysubset.workflows.fitting import fit_run

    if init is not None:
        settings = {**settings, "init": str(init)}
    return fit_run(experiment, settings, run, method, network, resume, report, progress)


# ------------------------------------------------------------------------------------------------ trained runs


def load(
    run: FilePath,
    *,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
) -> "Method":
    """Load the trained method of a run, in evaluation mode. `method.task` says what it was trained for.

    `method.predict({modality: tensor})` gives logits, or numbers for a regression, of preprocessed inputs;
    `predict` reads, preprocesses and writes files.

    Args:
        run: the run folder, or a model file that `export` wrote.
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: if the folder or file holds no run, or a checkpoint of another experiment.
    """
    from anysubset.workflows.trained import open_run

    return open_run(run, method=method, network=network, device=device).method


def evaluate(
    run: FilePath,
    *,
    split: str = "test",
    root: FilePath | None = None,
    output: FilePath | None = None,
    name: str | None = None,
    rates: Sequence[float] = (),
    frames: Sequence[float] = (),
    seed: int = 0,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
    report: Report = silent,
    progress: Progress = without_bar,
) -> "Evaluation":
    """Score a run in every scenario on a split. Every number also goes into the run's scores.csv.

    Args:
        run: the run folder, or a model file that `export` wrote.
        split: a name in the dataset's splits, or "all".
        root: data in another folder or file; by default those of the experiment.
        output: folder for scores.csv; by default the run folder. A model file needs both `root` and `output`.
        name: data set whose metrics a table is scored by, such as `mosi`; by default that of the experiment.
        rates: also score with modalities missing at random at these rates.
        frames: also score with steps of sequences missing at random at these rates; another protocol.
        seed: decides what is missing at random, the same for every method.
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with one line at a time.
        progress: wraps samples, with a label and their number, to show a progress bar.

    Raises:
        InputError: if the run, the data or the split is faulty.
    """
    from anysubset.workflows.evaluating import evaluate_run

    return evaluate_run(run, split, root, output, name, rates, frames, seed, method, network, device, report, progress)


def predict(
    run: FilePath | Sequence[FilePath],
    inputs: FilePath | Sequence[FilePath],
    *,
    output: FilePath | None = None,
    overwrite: bool = False,
    coverage: float | None = None,
    probabilities: bool = False,
    entropy: bool = False,
    jobs: int | None = None,
    backend: str | None = None,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
    report: Report = silent,
    warn: Report = silent,
    progress: Progress = without_bar,
) -> list[Path]:
    """Predict from files, whichever modalities they hold. Returns the masks, or the table of predictions.

    Patients whose predictions are in the folder, by the same weights from the same files, are skipped.

    Args:
        run: the run folder, or a model file that `export` wrote; of several, with the same modalities and regions,
            classes or numbers, the probabilities or numbers are averaged.
        inputs: folders of one or several patients, or one table.
        output: folder for the predictions; by default `predictions` in the folder of the only run; required for a model
            file. Predictions of the same runs are replaced; a file that no prediction wrote as it is never is.
        overwrite: also replace predictions of another run.
        coverage: for a table, add the set of classes or the interval of a number that holds the target in this share of
            the samples, such as 0.9, in every scenario; docs/formats.md says under which conditions.
        probabilities: also write a volume of calibrated probabilities for each region of a patient; of a table, the
            probabilities of classes are always written.
        entropy: also write the entropy in bits: of a patient, of the most uncertain region at every voxel (a volume);
            of a table, of the probabilities of the classes (a column).
        jobs: predict so many patients at a time on the CPU, each in a process with one thread. The predictions do not
            depend on the number. By default all threads of this process predict one patient after the other.
        backend: `dask`, or `dask=ADDRESS` of its scheduler: predict patients on the workers of a cluster, on the CPU,
            one for each of their threads.
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with one line for each prediction or scenario.
        warn: called with one line for each patient that fails; the others are predicted.
        progress: wraps patients, with a label and their number, to show a progress bar.

    Raises:
        PatientsError: at the end, if some of several patients failed; its `failed` says why, by id.
        InputError: if the run or a file is faulty, two predictions would have the same name, a file in the output
            folder must not be replaced, or a scenario has too few validation samples for the coverage.
    """
    from anysubset.workflows.predicting import predict_files

    return predict_files(
        run,
        inputs,
        output,
        overwrite,
        coverage,
        probabilities,
        entropy,
        jobs,
        backend,
        method,
        network,
        device,
        report,
        warn,
        progress,
    )


def export(
    run: FilePath,
    *,
    output: FilePath,
    dataset: str | None = None,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    report: Report = silent,
) -> Path:
    """Write a trained model into one file, which stands for the run folder in `load`, `predict` and `evaluate`.

    The file holds the selected weights, settings, scores by scenario and a model card, but neither data nor the name of
    a file, folder or sample. The same run gives the same bytes. docs/formats.md says what is in it.

    Args:
        run: the run folder of a finished training.
        output: the file, such as `model.zip`, which must not exist.
        dataset: name of the data set in the model card; by default `data.name` of the experiment.
        method: your own, if the run was trained with one. The file does not hold it: pass it again to open the file.
        network: likewise.
        report: called with one line at a time.

    Raises:
        InputError: if the run is faulty or not finished, reads pretrained encoders from folders, or the file exists.
    """
    from anysubset.workflows.exporting import export_run

    return export_run(run, output, dataset, method, network, report)


def diagnose(
    run: FilePath,
    *,
    split: str = "val",
    batches: int = 10,
    cases: str = "all",
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
    report: Report = silent,
    progress: Progress = without_bar,
) -> dict[str, Any]:
    """Measure conflict between the case gradients of a trained run. Nothing is trained.

    Args:
        run: the run folder; the result also goes into its diagnosis.json.
        split: whose samples the batches are drawn from, as in training.
        batches: number of batches.
        cases: "all", "missing=R" or "random=K".
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with one line at a time.
        progress: wraps batches, with a label and their number, to show a progress bar.

    Raises:
        InputError: if the run is faulty, or its method shares no parameters between modalities.
    """
    from anysubset.workflows.diagnosing import diagnose_run

    return diagnose_run(run, split, batches, cases, method, network, device, report, progress)


# ---------------------------------------------------------------------------------------------- data and reports


def inspect(path: FilePath, *, reading: Mapping[str, Any] | None = None, group: str | None = None) -> dict[str, Any]:
    """Describe data: samples, modalities, scenarios, shapes, labels, splits and faults.

    Args:
        path: folder of patients, one patient, Decathlon folder, or CSV manifest; or a table.
        reading: how a table is read, as in the settings `data.reading`.
        group: which samples belong together, as in the setting `data.group`.

    Raises:
        InputError: if nothing can be read there.
    """
    from anysubset.tables.description import inspect_table
    from anysubset.tables.formats import holds_table
    from anysubset.volumes.inspection import inspect_volumes

    if not reading and not holds_table(Path(path)):
        return inspect_volumes(Path(path), group)
    description = inspect_table(Path(path), group=group, **(reading or {}))
    if "samples" not in description:
        raise InputError(description["faults"][0])
    return description


def scored_runs(runs: FilePath | Iterable[FilePath], split: str, report: Report = silent) -> "list[RunGroup]":
    """Read the scores of runs on a split, grouped by data set.

    Args:
        runs: run folders, or folders that contain runs.
        split: that was scored.
        report: called with one line for each run that has no scores, or whose scores are outdated.

    Raises:
        InputError: if no run has scores on the split, or two runs cannot stand in one table.
    """
    from anysubset.report.groups import group_by_dataset
    from anysubset.report.reading import find_runs, read_results

    folders, unscored = find_runs([Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs])
    for folder in unscored:
        report(f"{folder} is left out: it has no scores yet")
    groups = group_by_dataset(result for folder in folders for result in read_results(folder, split))
    for group in groups:
        for line in group.caveats:
            report(f"note: {line}")
    return groups


def write_report(
    runs: FilePath | Sequence[FilePath],
    *,
    output: FilePath | None = None,
    split: str = "test",
    metric: str | None = None,
    region: str | None = None,
    reference: str | None = None,
    images: bool = False,
    method: "OwnMethod | Sequence[OwnMethod]" = None,
    network: "OwnNetwork | Sequence[OwnNetwork]" = None,
    report: Report = silent,
) -> Path:
    """Write one HTML page on runs: scores, tests, conflict, protocol, cost. Returns its path.

    (`anysubset.report` is the package that makes the page, so this function has another name.)

    Args:
        runs: run folders with scores, or folders that contain such runs.
        output: the file; by default report.html in the folder, if there is only one. A file is replaced only if it is
            a report as it was written.
        split: that was scored.
        metric: by default dice, acc2, accuracy or mae, the first one that was scored.
        region: by default the mean over all regions.
        reference: the method that the others are compared with.
        images: draw slices of volumes, which needs the patients and the weights.
        method: your own, for pictures by runs that were trained with one; a list of several.
        network: likewise.
        report: called with one line for each run that has no scores.

    Raises:
        InputError: if no run has scores, or the file cannot be written or must not be replaced.
    """
    from anysubset.datasets.scans import scored_scans_note
    from anysubset.report.page import page
    from anysubset.system.files import atomic_write
    from anysubset.system.written import check_replaceable

    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if output is None and len(paths) != 1:
        raise InputError("Several folders were given: say with --output which file to write.")
    file = Path(output) if output is not None else paths[0] / "report.html"
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: the folder {file.parent} does not exist.")
    check_replaceable(file, REPORT)
    groups = scored_runs(paths, split, report)
    for line in {scored_scans_note(group.sample_ids) for group in groups} - {None}:
        report(f"note: {line}")
    galleries: dict[str, Gallery | str] = {}
    if images:
        from anysubset.workflows.pictures import gallery_of

        methods, networks = several(method), several(network)
        galleries = {group.first.dataset: gallery_of(group, split, methods, networks) for group in groups}
    text = page(groups, galleries=galleries, metric=metric, region=region, reference=reference)
    with atomic_write(file, REPORT) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def several(own: Any) -> list[Any]:
    """A list of the methods or networks of the user's own: of one, of several, or of none."""
    if own is None:
        return []
    return list(own) if isinstance(own, list | tuple) else [own]
