"""The Python interface: train, score, predict with, inspect and report runs. The commands call the same functions.

    import anysubset

    run = anysubset.fit(["lgg.yaml", "gmd_common.yaml"], run="runs/lgg", report=print)
    scores = anysubset.evaluate(run.folder, split="test").scores
    method = anysubset.load(run.folder)
    logits = method.predict({"flair": flair, "t1": t1})

Functions return values and print nothing; pass `report=print` to see what they do. Wrong input raises InputError.
torch and MONAI are imported when a function needs them, so that `import anysubset` takes no time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment, read_run_experiment
from anysubset.experiments.settings import NETWORK_OPTIONS, Experiment, flatten
from anysubset.system.devices import device_of

if TYPE_CHECKING:
    from torch import Generator

    from anysubset.methods.method import Method
    from anysubset.methods.update import Update
    from anysubset.models.network import Network
    from anysubset.report.groups import RunGroup
    from anysubset.report.pictures import Gallery
    from anysubset.scoring.scores import Score
    from anysubset.tables.dataset import TableDataset
    from anysubset.tables.signature import Signature
    from anysubset.tasks.prediction import Prediction
    from anysubset.tasks.segmentation import Segmentation
    from anysubset.tasks.task import Task
    from anysubset.volumes.dataset import Volumes

FilePath = str | Path
# One YAML file, several that are joined, settings by nested or dotted name, or an Experiment.
Source = FilePath | Sequence[FilePath] | Mapping[str, Any] | Experiment
OwnMethod: TypeAlias = "type[Method] | Method | None"
# A network, or a function of the task that makes one.
OwnNetwork: TypeAlias = "Network | Callable[[Task], Network] | None"
Report = Callable[[str], None]  # Called with one line of text, as `print` is.
Progress = Callable[..., Iterable[Any]]  # Wraps an iterable, with a label and a total, to show a progress bar.


LISTED = 15  # Scenarios that fit into one line.


def silent(line: str) -> None:
    """Ignore a line: the default of every `report`."""


def without_bar(items: Iterable[Any], *label_and_total: object) -> Iterable[Any]:
    """Return the items as they are: the default of every `progress`."""
    return items


# --------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Fit:
    """The result of a training.

    Args:
        folder: the run folder.
        steps: optimizer steps done.
        skipped: those that changed nothing: no sample of the batch was eligible for any case, or a gradient overflowed.
        metric: the validation metric that selected the weights.
        best: its best mean over the scenarios. best_step: the step of the selected weights.
        validation: scores by scenario and region of the selected weights; region "all" for a table.
    """

    folder: Path
    steps: int
    skipped: int
    metric: str
    best: float
    best_step: int
    validation: Mapping[str, Mapping[str, float]]


def experiment_of(source: Source | None, settings: Mapping[str, Any]) -> Experiment:
    """Build an experiment from files or settings; `settings`, nested or dotted, override what the source says.

    Raises:
        InputError: if a file is missing or faulty, or a setting is unknown or of the wrong type.
    """
    overrides = flatten(settings)
    if isinstance(source, Experiment):
        return read_experiment(None, {**source.flat(), **overrides}) if overrides else source
    if source is None or isinstance(source, Mapping):
        return read_experiment(None, {**flatten(source or {}), **overrides})
    files = [source] if isinstance(source, str | Path) else source
    return read_experiment([Path(file) for file in files], overrides)


def fit(
    experiment: Source | None = None,
    *,
    run: FilePath,
    method: "str | type[Method] | Method | None" = None,
    network: OwnNetwork = None,
    resume: bool = False,
    report: Report = silent,
    progress: Callable[..., Iterable[int]] = without_bar,
    **settings: Any,
) -> Fit:
    """Train an experiment into a run folder. The test split is not looked at.

    Args:
        experiment: YAML file or files, settings, or an Experiment; the defaults if None.
        run: the run folder to write.
        method: the name of a method, or a method of your own: a subclass of `anysubset.methods.method.Method`, or an
            instance for the same task. Its options are settings too: `**{"method.gradients": "gmd"}`.
        network: a network of your own, for a method that trains any network on cases (`gmd`, `sharing`, `dropout`,
            `full`): an `anysubset.models.network.Network`, or a function of the task that makes one, so that the seed
            decides its weights. A run records the names of both; pass them again to resume or load it.
        resume: continue the run in the folder, if there is one. Otherwise a folder that holds a run is refused.
        report: called with one line at a time.
        progress: wraps the step numbers and the count of steps done before, to show a progress bar.
        **settings: override those of `experiment`, nested (`train={"steps": 5}`) or dotted (`**{"train.steps": 5}`).

    Raises:
        InputError: if the settings or the data are faulty, or the folder holds another run.
    """
    import torch

    from anysubset.datasets.table import create_dataset
    from anysubset.scoring.scores import shown
    from anysubset.system import processes
    from anysubset.training.loop import train
    from anysubset.training.run import Run

    if isinstance(method, str):
        settings, method = {**settings, "method.name": method}, None
    changes, folder = flatten(settings), Path(run)
    # Options of the user's method are not those of the method that the experiment names.
    others = {name: value for name, value in changes.items() if method is None or not name.startswith("method.")}
    chosen = experiment_of(experiment, others)
    chosen = replace(chosen, method=recorded_method(chosen.method, changes, method, network)).anchored()
    # Faults that show without reading a volume are reported before the run folder is made.
    device = device_of(chosen.train.device)
    processes.join(device.type)
    dataset = create_dataset(chosen.data, chosen.task, report)
    dataset.check_modalities()
    dataset.ids("train"), dataset.ids("val")
    torch.manual_seed(chosen.seed)
    generator = torch.Generator().manual_seed(chosen.seed)
    trained, update = create_method(chosen.method, dataset.task, generator, method, network)
    trained.check_inputs(dataset.loaded_inputs)
    trained.to(device)
    with Run(folder, chosen, resume) as opened:
        count = sum(parameter.numel() for parameter in trained.parameters())
        recipe = f", recipe {chosen.recipe}" if chosen.recipe is not None else ""
        report(f"{folder}: {chosen.method['name']}{recipe}, {count:,} parameters, on {device}")
        for line in support_lines(dataset):
            report(line)
        done = train(trained, update, dataset, opened, generator, show=progress, report=report)
    assert done.best is not None  # The last step is always validated.
    metric = dataset.selection[0]
    report(
        f"{folder}: {done.step} steps; validation {shown(metric, done.best)} at step {done.best_step}, "
        f"mean of {len(done.validation)} scenarios on {len(dataset.ids('val'))} {dataset.noun}"
    )
    if done.skipped:
        overflow = ", or a gradient in float16 overflowed" * (chosen.train.precision == "float16")
        steps = "1 step" if done.skipped == 1 else f"{done.skipped} steps"
        report(f"{steps} skipped: no sample of the batch was eligible for any case{overflow}")
    return Fit(folder, done.step, done.skipped, metric, done.best, done.best_step, done.validation)


def recorded_method(
    settings: Mapping[str, Any],
    changes: Mapping[str, Any],
    method: OwnMethod,
    network: OwnNetwork,
) -> dict[str, Any]:
    """The settings `method` of a run, with the names of a method and a network of the user's own.

    Args:
        settings: of the experiment; the options of another method are dropped if the user brings one.
        changes: settings by dotted name that are meant for the user's method.
        method: of the user.
        network: of the user.
    """
    recorded = dict(settings)
    if method is not None:
        name = qualified_name(method)
        prefix = "method."
        options = {key.removeprefix(prefix): value for key, value in changes.items() if key.startswith(prefix)}
        recorded = {**(recorded if recorded["name"] == name else {}), **options, "name": name}
    if network is not None:
        # Options of the method's own network say nothing about the user's; one that is set beside it is refused.
        recorded = {
            option: value
            for option, value in recorded.items()
            if option not in NETWORK_OPTIONS or f"method.{option}" in changes
        }
        recorded["network"] = qualified_name(network)
    return recorded


def qualified_name(thing: object) -> str:
    """The module and name of a class or function, or of the class of an instance."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def create_method(
    settings: Mapping[str, Any],
    task: "Task",
    generator: "Generator | None" = None,
    method: OwnMethod = None,
    network: OwnNetwork = None,
) -> "tuple[Method, Update]":
    """Create the method and the update of a run, or take those that the user brings.

    Args:
        settings: the settings `method` of the run: `name`, perhaps `network`, and options.
        task: what the data ask for.
        generator: draws the orders of projection.
        method: of the user.
        network: of the user.

    Raises:
        InputError: if an option is unknown, or a method or network of the user does not fit or is not given again.
    """
    from anysubset.methods.method import Method
    from anysubset.methods.table import METHODS, Row, create, method_of
    from anysubset.methods.update import UPDATES
    from anysubset.models.network import Network

    options = {name: value for name, value in settings.items() if name not in ("name", "network")}
    recorded = (("method", settings["name"], method), ("network", settings.get("network"), network))
    for kind, name, own in recorded:
        theirs = name is not None and (kind == "network" or (name not in METHODS and "." in name))
        if theirs and own is None:
            raise InputError(f"This run was trained with a {kind} of your own, {name}: pass it in Python, {kind}=...")
        if own is not None and qualified_name(own) != name:
            raise InputError(f"This run was trained with {kind} {name or 'of its own'}, not {qualified_name(own)}.")
    if network is not None and not isinstance(network, Network):
        network = network(task)
        if not isinstance(network, Network):
            raise InputError(f"network= is a Network, or a function of the task that makes one, not {network!r}.")
    if method is None:
        return method_of({"name": settings["name"], **options}, task, generator, network)
    if isinstance(method, Method):
        if method.task != task:
            raise InputError("The method was made for another task than that of these data; pass its class instead.")
        if network is not None or set(options) - {"gradients"}:
            raise InputError("A method that is made already takes no network= and no options: pass its class instead.")
        return method, UPDATES[str(options.get("gradients", "mean"))](method)
    return create(Row(method, "of the user"), settings["name"], task, options, generator, network)


def support_lines(dataset: "Volumes | TableDataset") -> list[str]:
    """Say how many training samples support each scenario, and name the scenarios that none supports."""
    from anysubset.scenarios import MOST, all_scenarios, scenario_name, support

    modalities, present = dataset.task.modalities, dataset.present("train")
    lines = [f"{present.count(modalities)} of {len(present)} training {dataset.noun} have every modality"]
    if len(modalities) > MOST:
        return lines
    counts = support(present, all_scenarios(modalities))
    if len(counts) <= LISTED:
        by_scenario = ", ".join(f"{scenario_name(scenario)} {count}" for scenario, count in counts.items())
    else:
        least = min(counts, key=lambda scenario: counts[scenario])
        by_scenario = f"{len(counts)} scenarios, with {counts[least]} ({scenario_name(least)}) to "
        by_scenario += f"{max(counts.values())} each"
    lines.append(f"training {dataset.noun} by scenario: {by_scenario}")
    unsupported = [scenario_name(scenario) for scenario, count in counts.items() if not count]
    if unsupported:
        listed = ", ".join(unsupported[:5]) + (", ..." if len(unsupported) > 5 else "")
        lines.append(f"no training {dataset.noun} for {len(unsupported)} scenarios, learned from others: {listed}")
    return lines


# ------------------------------------------------------------------------------------------------ trained runs


@dataclass(frozen=True)
class Trained:
    """A trained run.

    Args:
        experiment: its settings.
        task: what its data ask for.
        method: with the weights that validation selected, in evaluation mode.
        facts: of the checkpoint: `step`, `validation` by scenario, and more.
        signature: modalities and statistics of the training table; None for volumes.
    """

    experiment: Experiment
    task: "Segmentation | Prediction"
    method: "Method"
    facts: Mapping[str, Any]
    signature: "Signature | None"


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
        run: the run folder.
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: if the folder holds no run, or a checkpoint of another experiment.
    """
    return open_run(run, method=method, network=network, device=device).method


def open_run(
    run: FilePath,
    *,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
) -> Trained:
    """Load a trained run with its experiment, task and checkpoint facts. Arguments are those of `load`.

    Raises:
        InputError: if the folder holds no run, or a checkpoint of another experiment.
    """
    from anysubset.datasets.table import create_task, signature_in
    from anysubset.system import tensor_file
    from anysubset.system.run_folder import RunFolder
    from anysubset.training.run import check_same

    folder = Path(run)
    experiment = read_run_experiment(folder)
    tensors, facts = tensor_file.load(RunFolder(folder).best)
    check_same(experiment, facts["experiment"], RunFolder(folder).best)
    signature = signature_in(RunFolder(folder).signature, experiment.data)
    task = create_task(experiment.data, experiment.task, signature)
    trained, _ = create_method(experiment.method, task, None, method, network)
    tensor_file.load_module(tensors, trained, RunFolder(folder).best, trained.prediction_state())
    return Trained(experiment, task, trained.to(device_of(device)).eval(), facts, signature)


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run on a split.

    Args:
        scores: of every sample in every scenario that it is eligible for, and over the whole split.
        recipe: how the run was trained, by the names of files; None if it was trained without.
        random: the same where modalities are missing at random, by rate; empty unless rates were asked for.
        dataset: the data set that was scored.
    """

    scores: "list[Score]"
    random: "list[Score]"
    recipe: str | None
    dataset: "Volumes | TableDataset"


def evaluate(
    run: FilePath,
    *,
    split: str = "test",
    root: FilePath | None = None,
    rates: Sequence[float] = (),
    seed: int = 0,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
    report: Report = silent,
    progress: Progress = without_bar,
) -> Evaluation:
    """Score a run in every scenario on a split. Every number also goes into the run's scores.csv.

    Args:
        run: the run folder.
        split: a name in the dataset's splits, or "all".
        root: data in another folder or file; by default those of the experiment.
        rates: also score with modalities missing at random at these rates.
        seed: decides what is missing at random, the same for every method.
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with one line at a time.
        progress: wraps samples, with a label and their number, to show a progress bar.

    Raises:
        InputError: if the run, the data or the split is faulty.
    """
    from anysubset.datasets.table import create_dataset
    from anysubset.evaluation.availability import write_availability
    from anysubset.evaluation.every_scenario import evaluate as evaluate_method
    from anysubset.evaluation.random_missingness import draw_missingness, scores_of_draws, write_draws
    from anysubset.scoring.scores import write_scores
    from anysubset.system import processes
    from anysubset.system.run_folder import RunFolder

    folder = Path(run)
    processes.join(device_of(device).type)
    trained = open_run(folder, method=method, network=network, device=device)
    experiment = trained.experiment.at(None if root is None else str(root), groups=trained.method.unit == "group")
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature)
    trained.method.check_inputs(dataset.loaded_inputs)
    if root is None:
        dataset.check_trained()
    if rates and trained.method.unit == "group":
        raise InputError(
            "Scores at a rate of missing modalities are made of the scores of single samples, but this method predicts "
            "whole groups: leave out --rate."
        )
    draws = draw_missingness(dataset, split, rates, seed)
    dataset.prepare(split)
    share = len(processes.share(dataset.ids(split)))
    scores = evaluate_method(
        trained.method, dataset, split, progress=lambda samples: progress(samples, "Scoring", share)
    )
    random = scores_of_draws(scores, draws, dataset)
    facts = {
        "run": folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        # Samples of another folder must not replace the scores of the experiment's own.
        "dataset": experiment.data.name if root is None else str(Path(root).resolve()),
        "split": split,
    }
    if processes.rank() == 0:
        if root is None:
            write_availability(RunFolder(folder).availability, dataset)
        write_draws(folder / "missingness", draws, dataset, split, seed)
        write_scores(RunFolder(folder).scores, [*scores, *random], dataset.task.modalities, facts)
    return Evaluation(scores, random, experiment.recipe, dataset)


def predict(
    run: FilePath,
    inputs: FilePath | Sequence[FilePath],
    *,
    output: FilePath | None = None,
    method: OwnMethod = None,
    network: OwnNetwork = None,
    device: str = "auto",
    report: Report = silent,
    progress: Progress = without_bar,
) -> list[Path]:
    """Predict from files, whichever modalities they hold. Returns the files that were written.

    Args:
        run: the run folder.
        inputs: folders of one or several patients, or one table.
        output: folder for the predictions; by default `predictions` in the run folder.
        method: your own, if the run was trained with one.
        network: your own, if the run was trained with one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with one line for each prediction or scenario.
        progress: wraps patients, with a label, to show a progress bar.

    Raises:
        InputError: if the run or a file is faulty, or two predictions would have the same name.
    """
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
    from collections import Counter

    from anysubset.evaluation.patients import predict as predict_patient
    from anysubset.tasks.segmentation import Segmentation
    from anysubset.volumes.patients import find_patients

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
    from anysubset.datasets.table import create_dataset
    from anysubset.evaluation.rows import write_predictions
    from anysubset.scenarios import scenario_name
    from anysubset.tables.dataset import TableDataset

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
    import json

    import torch

    from anysubset.datasets.table import create_dataset
    from anysubset.report.diagnostics import diagnosis, history_of
    from anysubset.scenarios import case_sampler
    from anysubset.system.files import whole
    from anysubset.training.diagnose import check_shared
    from anysubset.training.diagnose import diagnose as measure

    if batches < 1:
        raise InputError(f"The number of batches must be at least 1, not {batches}.")
    folder, trained = Path(run), open_run(run, method=method, network=network, device=device)
    check_shared(trained.method)
    experiment = trained.experiment
    sampler = case_sampler(trained.task.modalities, cases)
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature)
    dataset.check_trained()
    samples, parts = len(dataset.ids(split)), experiment.train.micro_batches
    unit = trained.method.unit
    drawn = dataset.training_batches(split, experiment.train.batch, experiment.seed, 0, batches, parts, unit)
    grouped = ([next(drawn) for _ in range(parts)] for _ in range(batches))
    chosen = sampler(torch.Generator().manual_seed(experiment.seed))
    measured = measure(trained.method, progress(grouped, "Measuring", batches), chosen)
    result = {
        "run": folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        "split": split,
        "step": trained.facts["step"],
        **diagnosis(folder, history_of(measured.arrays())),
    }
    with whole(folder / "diagnosis.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    report(f"split {split!r}, {samples} {dataset.noun}, {batches} batches")
    return result


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
        report: called with one line for each run that has no scores.

    Raises:
        InputError: if no run has scores on the split, or two runs cannot stand in one table.
    """
    from anysubset.report.groups import group_by_dataset
    from anysubset.report.reading import find_runs, read_results

    folders, unscored = find_runs([Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs])
    for folder in unscored:
        report(f"{folder} is left out: it has no scores yet")
    return group_by_dataset(result for folder in folders for result in read_results(folder, split))


def write_report(
    runs: FilePath | Sequence[FilePath],
    *,
    output: FilePath | None = None,
    split: str = "test",
    metric: str | None = None,
    region: str | None = None,
    reference: str | None = None,
    images: bool = False,
    report: Report = silent,
) -> Path:
    """Write one HTML page on runs: scores, tests, conflict, protocol, cost. Returns its path.

    (`anysubset.report` is the package that makes the page, so this function has another name.)

    Args:
        runs: run folders with scores, or folders that contain such runs.
        output: the file; by default report.html in the folder, if there is only one.
        split: that was scored.
        metric: by default dice, acc2, accuracy or mae, the first one that was scored.
        region: by default the mean over all regions.
        reference: the method that the others are compared with.
        images: draw slices of volumes, which needs the patients and the weights.
        report: called with one line for each run that has no scores.

    Raises:
        InputError: if no run has scores, or the file cannot be written.
    """
    from anysubset.report.page import page
    from anysubset.system.files import whole

    paths = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if output is None and len(paths) != 1:
        raise InputError("Several folders were given: say with --output which file to write.")
    file = Path(output) if output is not None else paths[0] / "report.html"
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be written: the folder {file.parent} does not exist.")
    groups = scored_runs(paths, split, report)
    galleries = {group.first.dataset: gallery_of(group, split) for group in groups} if images else {}
    text = page(groups, galleries=galleries, metric=metric, region=region, reference=reference)
    with whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def gallery_of(group: "RunGroup", split: str) -> "Gallery | str":
    """Predict slices of patients with the runs of one data set; or say why there are no pictures."""
    from anysubset.datasets.table import create_dataset
    from anysubset.evaluation.slices import slices
    from anysubset.report.comparison import Comparison
    from anysubset.report.pictures import gallery, select
    from anysubset.volumes.dataset import Volumes

    if "dice" not in group.first.metrics:
        return "Only volumes have slices."
    comparison = Comparison(group, "dice")
    chosen = select(comparison)
    if chosen is None:
        return "No patient has every modality, so none can be shown in all scenarios."
    patients, scenarios = [patient for _, patient in chosen.patients], [scenario for _, scenario in chosen.scenarios]
    cuts = {}
    for method in chosen.methods:
        result = next(iter(group.results[method].values()))
        trained = open_run(result.folder)
        data = trained.experiment.data
        if not Path(data.root).exists():
            return f"The patients cannot be read: {data.root} does not exist."
        dataset = create_dataset(data, trained.experiment.task)
        assert isinstance(dataset, Volumes)
        for patient, scenario, cut in slices(trained.method, dataset, split, patients, scenarios):
            cuts[method, patient, scenario] = cut
    return gallery(comparison, chosen, cuts)
