"""Score a trained run in every scenario."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anysubset.datasets.dataset import Sample
from anysubset.datasets.table import create_dataset, dataset_named
from anysubset.errors import InputError
from anysubset.evaluation.availability import write_availability
from anysubset.evaluation.every_scenario import evaluate as evaluate_method
from anysubset.evaluation.missing_frames import row_names, scores_without_frames
from anysubset.evaluation.random_missingness import draw_missingness, scores_of_draws, write_draws
from anysubset.methods.method import Method
from anysubset.scenarios import note_on_scenarios
from anysubset.scoring.scores import Score, read_rows, without, write_scores
from anysubset.system import processes
from anysubset.system.agreement import SETTINGS, check_agreement, check_same_data, versions
from anysubset.system.devices import device_of
from anysubset.system.fingerprints import split_hash
from anysubset.system.model_file import is_model_file
from anysubset.system.run_folder import RunFolder, read_availability
from anysubset.system.scored_files import record_files
from anysubset.tables.dataset import TableDataset
from anysubset.tables.kinds import TableSet
from anysubset.volumes.dataset import Volumes
from anysubset.workflows.arguments import FilePath, OwnMethod, OwnNetwork, Progress, Report
from anysubset.workflows.recorded_data import is_own
from anysubset.workflows.trained import Trained, check_output_of_model, open_run
from anysubset.workflows.whole_groups import check_groups


@dataclass(frozen=True)
class Evaluation:
    """Scores of a run on a split.

    Args:
        scores: of every sample in every scenario that it is eligible for, and over the whole split.
        recipe: how the run was trained, by the names of files; None if it was trained without.
        random: the same where modalities are missing at random, by rate; empty unless rates were asked for.
        frames: the same where steps of sequences are missing at random; empty unless rates of them were asked for.
        dataset: the data set that was scored.
    """

    scores: list[Score]
    random: list[Score]
    frames: list[Score]
    recipe: str | None
    dataset: Volumes | TableDataset


def check_frames(dataset: Volumes | TableDataset, split: str, frames: Sequence[float], method: Method) -> None:
    """Raise InputError if steps of sequences cannot be removed at these rates, before anything is scored."""
    if not isinstance(dataset, TableDataset):
        raise InputError(
            "Frames are steps of the sequences of a table, and the run is one of volumes: leave out --frames."
        )
    row_names(dataset, split, frames)
    if method.unit == "group" and len(set(dataset.present(split))) > 1:
        raise InputError(
            "With missing frames each sample has all of its modalities, but this method predicts whole groups, whose "
            "samples differ in them: leave out --frames."
        )


def renamed(trained: Trained, name: str) -> Trained:
    """The run as if it had been trained on a table of this data set: its targets have other limits and metrics.

    Raises:
        InputError: if the data set is unknown, or it or the run is one of volumes.
    """
    experiment, signature = trained.experiment, trained.signature
    experiment = replace(experiment, data=replace(experiment.data, name=name))
    entry = dataset_named(experiment.data)
    if signature is None or not isinstance(entry, TableSet):
        kinds = ["a table" if isinstance(entry, TableSet) else "volumes", "a table" if signature else "volumes"]
        raise InputError(f"{name} holds {kinds[0]}, and the run was trained on {kinds[1]}: leave out --data.name.")
    if signature.classes and entry.limits is not None:
        raise InputError(f"{name} is for numbers, and the run predicts classes: leave out --data.name.")
    return replace(trained, experiment=experiment, signature=replace(signature, limits=entry.limits))


def evaluate_run(
    run: FilePath,
    split: str,
    root: FilePath | None,
    output: FilePath | None,
    name: str | None,
    rates: Sequence[float],
    frames: Sequence[float],
    seed: int,
    method: OwnMethod,
    network: OwnNetwork,
    device: str,
    report: Report,
    progress: Progress,
) -> Evaluation:
    """Score a run in every scenario on a split; see `anysubset.evaluate`."""
    check_output_of_model(Path(run), output)
    if is_model_file(Path(run)) and root is None:
        raise InputError(f"{run} is a model file, which does not name its data: name those to score with --data.root.")
    target = RunFolder(Path(output if output is not None else run))
    with processes.joined(device_of(device).type):
        return evaluate_on_ranks(
            Path(run), target, split, root, name, rates, frames, seed, method, network, device, report, progress
        )


def evaluate_on_ranks(
    folder: Path,
    target: RunFolder,
    split: str,
    root: FilePath | None,
    name: str | None,
    rates: Sequence[float],
    frames: Sequence[float],
    seed: int,
    method: OwnMethod,
    network: OwnNetwork,
    device: str,
    report: Report,
    progress: Progress,
) -> Evaluation:
    """Score a run into a folder, on this process and on those that it has joined; see `anysubset.evaluate`."""
    trained = open_run(folder, method=method, network=network, device=device)
    asked = {"--split": split, "--data.name": name, "--rate": rates, "--frames": frames, "--seed": seed}
    check_agreement("settings", {"weights of the run": trained.weights, **asked, **versions()}, SETTINGS)
    if name is not None:
        trained = renamed(trained, name)
    experiment = trained.experiment.at(None if root is None else str(root), groups=trained.method.unit == "group")
    dataset = create_dataset(experiment.data, experiment.task, report, trained.signature)
    dataset = dataset.calibrated(trained.task.temperatures)
    trained.method.check_inputs(dataset.loaded_inputs)
    if root is None:
        dataset.check_trained()
    if target.path.exists() and not target.path.is_dir():
        raise InputError(f"{target.path} is a file: name a folder for the scores with --output.")
    if target.scores.exists():
        read_rows(target.scores)  # What is no file of scores is refused before anything is computed.
    read_availability(target.availability)  # Likewise.
    if rates and trained.method.unit == "group":
        raise InputError(
            "Scores at a rate of missing modalities are made of the scores of single samples, but this method predicts "
            "whole groups: leave out --rate."
        )
    note = note_on_scenarios(dataset.task.modalities)
    if rates and note is not None:
        count = len(dataset.task.modalities)
        raise InputError(
            f"Scores at a rate of missing modalities need the scores of every scenario, and of {count} modalities only "
            "some scenarios are scored: leave out --rate."
        )
    if frames:
        check_frames(dataset, split, frames, trained.method)
    draws = draw_missingness(dataset, split, rates, seed)
    if note is not None:
        report(note)
    check_same_data({split: {sample: {} for sample in dataset.ids(split)}})
    dataset.prepare(split)
    check_same_data({split: dataset.fingerprints(split)})
    check_groups(dataset, dataset.ids(split), trained.method, report)
    own = is_own(folder, dataset, split, root, report)
    share = len(processes.share(dataset.ids(split)))
    scores = evaluate_method(
        trained.method, dataset, split, progress=lambda samples: progress(samples, "Scoring", share)
    )
    random = without(trained.method.undefined_metrics, scores_of_draws(scores, draws, dataset))
    thinned: list[Score] = []
    if isinstance(dataset, TableDataset):

        def scoring(samples: Iterable[Sample]) -> Iterable[Sample]:
            return progress(samples, "Scoring missing frames", share)

        thinned = scores_without_frames(trained.method, dataset, split, frames, seed, scoring)
    facts = {
        "run": folder.stem if trained.exported else folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        # Samples of another folder must not replace the scores of the experiment's own.
        "dataset": experiment.data.name if own else str(Path(root or experiment.data.root).resolve()),
        "split": split,
        "weights": trained.weights,
        "data": split_hash(dataset.fingerprints(split)),
    }
    if processes.rank() == 0:
        target.path.mkdir(parents=True, exist_ok=True)
        if own:
            write_availability(target.availability, dataset)
        write_draws(target.path / "missingness", draws, dataset, split, seed)
        write_scores(target.scores, [*scores, *random, *thinned], dataset.task.modalities, facts)
        record_files(target.scored, str(facts["dataset"]), split, dataset.files(split))
    return Evaluation(scores, random, thinned, experiment.recipe, dataset)
