"""Train an experiment into a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError, listed
from anysubset.experiments.files import read_run_experiment
from anysubset.experiments.settings import INCIDENTAL, Experiment, flatten
from anysubset.methods.creation import training_of
from anysubset.methods.method import Method
from anysubset.methods.table import METHODS
from anysubset.models.network import Network
from anysubset.scenarios import all_scenarios, note_on_scenarios, scenario_name, support
from anysubset.scoring.scores import shown
from anysubset.system import processes
from anysubset.system.agreement import SETTINGS, check_agreement, check_same_data, versions
from anysubset.system.devices import device_of
from anysubset.system.numbers import memory_errors
from anysubset.system.run_folder import RunFolder
from anysubset.tables.dataset import TableDataset
from anysubset.training.loop import train
from anysubset.training.run import Run, check_same
from anysubset.volumes.dataset import Volumes
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report, Source, experiment_of
from anysubset.workflows.own import create_method, recorded_method
from anysubset.workflows.starting import read_start, start_from
from anysubset.workflows.whole_groups import check_training_groups

LISTED = 15  # Scenarios that fit into one line.


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


def fit_run(
    experiment: Source | None,
    settings: Mapping[str, Any],
    run: FilePath,
    method: str | type[Method] | Method | None,
    network: OwnNetwork,
    resume: bool,
    report: Report,
    progress: Progress,
) -> Fit:
    """Train an experiment into a run folder.

    Args:
        experiment: as in `anysubset.fit`; if None, with `resume`, that of the run in the folder, if there is one.
        settings: override those of the experiment, nested or dotted.
        run: the run folder.
        method: a name, or a method of the user's own.
        network: of the user's own.
        resume: whether to continue the run in the folder.
        report: called with one line at a time.
        progress: wraps the step numbers, to show a progress bar.

    Raises:
        InputError: if the settings or the data are faulty, or the folder holds another run.
    """
    if isinstance(method, str):
        settings, method = {**settings, "method.name": method}, None
    changes, folder = flatten(settings), Path(run)
    # If the user passes a method, overrides of `method.*` are its options. The method that it replaces, which the
    # experiment names, may not have them.
    others = {name: value for name, value in changes.items() if method is None or not name.startswith("method.")}
    continues = experiment is None and resume and RunFolder(folder).experiment.is_file()
    chosen = settings_of_run(folder, others, report) if continues else experiment_of(experiment, others)
    chosen = replace(chosen, method=recorded_method(chosen.method, changes, method, network)).anchored()
    # Faults that show without reading a volume are reported before the run folder is made.
    if Path(chosen.data.root).is_dir() and folder.resolve() == Path(chosen.data.root).resolve():
        raise InputError(f"{folder} is the folder of the data: choose another folder for the run.")
    device = device_of(chosen.train.device)
    with processes.joined(device.type):
        own = {name: value for name, value in chosen.flat().items() if name not in (*INCIDENTAL, "train.device")}
        check_agreement("settings", {**own, "--resume": resume, **versions()}, SETTINGS)
        return fit_on_ranks(chosen, folder, device, method, network, resume, report, progress)


def fit_on_ranks(
    chosen: Experiment,
    folder: Path,
    device: torch.device,
    method: type[Method] | Method | None,
    network: OwnNetwork,
    resume: bool,
    report: Report,
    progress: Progress,
) -> Fit:
    """Train an experiment, on this process and on those that it has joined; see `fit_run`."""
    start = read_start(chosen.init, folder, resume) if chosen.init is not None else None
    if start is not None:
        chosen = replace(chosen, init=start.recorded)
    dataset = create_dataset(chosen.data, chosen.task, report, start=start.signature if start is not None else None)
    if isinstance(dataset, Volumes):
        chosen = replace(chosen, data=dataset.data)  # With numbers in place of a median.
    dataset.check_modalities()
    for split in ("train", "val"):
        dataset.ids(split)  # Raises InputError if there is no such split, or it is empty.
    check_same_data({split: {sample: {} for sample in dataset.ids(split)} for split in dataset.recorded_splits})
    torch.manual_seed(chosen.seed)
    generator = torch.Generator().manual_seed(chosen.seed)
    with memory_errors("the network is too large, lower method.width or method.layers"):
        trained, update = create_method(chosen.method, dataset.task, generator, method, network)
        trained.check_inputs(dataset.loaded_inputs)
        lines = []
        if start is not None:
            check_creates(method, network)
            lines = start_from(
                start,
                trained,
                chosen.method,
                dataset.signature if isinstance(dataset, TableDataset) else None,
                lambda task, options: create_method(options, task, None, method, network)[0],
            )
        check_training_groups(dataset, trained, report)
        trained.to(device)
    if trained.full_batch:
        samples = len(dataset.ids("train"))
        report(f"{chosen.method['name']} takes all {samples} training {dataset.noun} in every step")
    advice = "lower train.batch, task.patch or method.width, or raise train.micro_batches"
    members = start.members if start is not None else {}
    with Run(folder, chosen, resume, training_of(chosen.method), members) as opened, memory_errors(advice):
        if RunFolder(folder).experiment.exists() and not RunFolder(folder).data.exists():
            report(f"note: {folder} has no {RunFolder(folder).data.name}, so it is unknown whether the data changed")
        count = sum(parameter.numel() for parameter in trained.parameters())
        recipe = f", recipe {chosen.recipe}" if chosen.recipe is not None else ""
        report(f"{folder}: {chosen.method['name']}{recipe}, {count:,} parameters, on {device}")
        for line in [*lines, *support_lines(dataset)]:
            report(line)
        done = train(trained, update, dataset, opened, generator, show=progress, report=report)
    assert done.best is not None  # The last step is always validated.
    metric = dataset.selection[0]
    report(
        f"{folder}: {done.step} step{'s' * (done.step != 1)}; validation {shown(metric, done.best)} at step "
        f"{done.best_step}, mean of {len(done.validation)} scenarios on {len(dataset.ids('val'))} {dataset.noun}"
    )
    if done.skipped:
        overflow = ", or a gradient in float16 overflowed" * (chosen.train.precision == "float16")
        steps = "1 step" if done.skipped == 1 else f"{done.skipped} steps"
        row = METHODS.get(str(chosen.method["name"]))
        hint = "" if row is None or not row.complete else "; data.complete_only leaves incomplete samples out"
        report(f"{steps} skipped: no sample of the batch was eligible for any case{overflow}{hint}")
    return Fit(folder, done.step, done.skipped, metric, done.best, done.best_step, done.validation)


def check_creates(method: OwnMethod, network: OwnNetwork) -> None:
    """Raise InputError for a method or network of the user's own that is made already, so that it has its weights."""
    for made, kind in ((isinstance(method, Method), "method"), (isinstance(network, Network), "network")):
        if made:
            raise InputError(f"init needs the class or function that makes the {kind}, {kind}=..., not an instance.")


def settings_of_run(folder: Path, changes: Mapping[str, Any], report: Report) -> Experiment:
    """Read the settings of the run in a folder, to continue it.

    Args:
        folder: of the run.
        changes: settings by dotted name that must agree with those of the run, unless results do not depend on them.
        report: called with a line on where the settings come from.

    Raises:
        InputError: if options of the method differ. Other settings are compared when the run is opened, since some are
            computed from the data.
    """
    stored = read_run_experiment(folder)
    chosen = experiment_of(stored, changes)
    file = RunFolder(folder).experiment
    check_same(replace(stored, method=chosen.method), stored.flat(), file)
    report(f"Settings of the run: {file}")
    return chosen


def support_lines(dataset: Volumes | TableDataset) -> list[str]:
    """Say how many training samples support each scenario, and name the scenarios that none supports."""
    modalities, present = dataset.task.modalities, dataset.present("train")
    lines = [f"{present.count(modalities)} of {len(present)} training {dataset.noun} have every modality"]
    note = note_on_scenarios(modalities)
    if note is not None:
        return [*lines, note]
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
        names = listed(unsupported, most=5)
        lines.append(f"no training {dataset.noun} for {len(unsupported)} scenarios, learned from others: {names}")
    return lines
