"""`anysubset demo`: generate data, train two methods, compare them."""

from pathlib import Path
from typing import TYPE_CHECKING

import jsonargparse

from anysubset import api
from anysubset.commands.options import Options, file_path
from anysubset.commands.progress import track_samples, track_steps
from anysubset.commands.score_tables import show_table_scores, show_volume_scores
from anysubset.commands.terminal import complain, say
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment

if TYPE_CHECKING:
    from anysubset.scoring.scores import Score
    from anysubset.tables.dataset import TableDataset
    from anysubset.volumes.dataset import Volumes

DEMO = "anysubset demo"  # Recorded beside the data that the demo generates.
PATIENTS = {"train": 24, "val": 4, "test": 12}  # Phantoms by split.
SIZE = (48, 48, 32)  # Their voxels along every axis.


def demo_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `demo`."""
    parser.add_argument("--task", choices=["segmentation", "sentiment"], default="segmentation", help="Task to show.")
    parser.add_argument("--output", type=file_path, help="Folder of data and runs; by default runs/demo[_sentiment].")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the data and of both runs.")
    parser.add_argument("--train.steps", type=int, help="Optimizer steps of each run.")


def demo(options: Options) -> None:
    """Generate data, train on complete input and with GMD, and compare both in every scenario.

    The data are phantom patients with tumours, or utterances of text, audio and vision. An interrupted demo is
    continued when it is called again.
    """
    sentiment = options.get("task") == "sentiment"
    folder = Path(options.get("output") or ("runs/demo_sentiment" if sentiment else "runs/demo"))
    (demo_sentiment if sentiment else demo_segmentation)(folder, options.get("seed", 0), options.get("train", {}))


def demo_segmentation(folder: Path, seed: int, settings: Options) -> None:
    """Demonstrate on phantom patients; print the Dice of both methods."""
    from anysubset.scoring.scores import means
    from anysubset.volumes.dataset import Volumes
    from anysubset.volumes.phantom import write_phantoms

    patients = folder / "patients"
    if patients.exists():
        check_generated(patients / "splits.json")
    else:
        say(f"Generating phantom patients in {patients}: enhancing tumour is visible almost only in t1ce")
        write_phantoms(patients, counts=PATIENTS, size=SIZE, seed=seed, writer=DEMO)
    scores, dataset = demo_runs("segmentation", folder, patients, seed, settings)
    assert isinstance(dataset, Volumes)
    tables = {method: means(values, "dice") for method, values in scores.items()}
    show_volume_scores(tables, dataset, "test", "training on complete input (full) against GMD")
    say(
        "full: trained on complete samples only. gmd: trained on every subset of the modalities, with conflicts\n"
        "between the gradients of the subsets removed (Gradient-guided Modality Decoupling).\n"
        "Rows without t1ce show the scores if it is missing.\n"
        f"Runs: {folder / 'full'} and {folder / 'gmd'}; patients: {patients}\n"
        f"Report: {folder / 'report.html'}\n"
        f"Next: anysubset predict {folder / 'gmd'} {next(iter(dataset.patients.values())).sources['t1'].path.parent}"
    )


def demo_sentiment(folder: Path, seed: int, settings: Options) -> None:
    """Train `full` and `gmd` on generated utterances in which text is most informative, and print their metrics."""
    from anysubset.tables.arrays import write_table
    from anysubset.tables.dataset import TableDataset
    from anysubset.tables.trimodal import trimodal

    table = folder / "utterances.npz"
    if table.exists():
        check_generated(table)
    else:
        say(
            f"Generating utterances in {table}: text is most informative; a training sample lacks each modality with "
            "probability 1/2"
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_table(trimodal(missing_rate=0.5, informed={}, seed=seed), table, DEMO)
    scores, dataset = demo_runs("sentiment", folder, table, seed, settings)
    assert isinstance(dataset, TableDataset)
    title = "training on complete input (full) against GMD"
    show_table_scores(scores, dataset, "test", title, ("acc2", "mae", "corr"))
    say(
        "full: trained on complete samples only. gmd: trained on every subset of the modalities, with conflicts\n"
        "between the gradients of the subsets removed (Gradient-guided Modality Decoupling).\n"
        f"Runs: {folder / 'full'} and {folder / 'gmd'}; utterances: {table}\n"
        f"Report: {folder / 'report.html'}\n"
        f"Next: anysubset predict {folder / 'gmd'} {table}"
    )


def check_generated(file: Path) -> None:
    """Raise InputError if a file of the demo's data is not one that it generated."""
    from anysubset.system.written import writer_of

    if writer_of(file) != DEMO:
        raise InputError(f"{file} was not generated by `anysubset demo`, or was changed: choose another --output.")


def demo_runs(
    task: str, folder: Path, root: Path, seed: int, settings: Options
) -> tuple[dict[str, list["Score"]], "Volumes | TableDataset"]:
    """Train both methods, score them on the test split, and write their report."""
    from anysubset.system.written import check_replaceable

    check_replaceable(folder / "report.html", api.REPORT)
    scores = {}
    for method in ("full", "gmd"):
        overrides = {"seed": seed, "data.root": str(root), "method.name": method}
        overrides |= {f"train.{name}": value for name, value in settings.items()}
        experiment = read_experiment(Path(__file__).with_name(f"demo_{task}.yaml"), overrides)
        say()
        api.fit(experiment, run=folder / method, resume=True, report=say, progress=track_steps)
        evaluation = api.evaluate(folder / method, report=say, progress=track_samples)
        scores[method] = evaluation.scores
    api.write_report(
        [folder / method for method in scores],
        output=folder / "report.html",
        reference="full",
        images=task == "segmentation",
        report=complain,
    )
    return scores, evaluation.dataset
