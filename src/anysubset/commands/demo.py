"""`anysubset demo`: generate data, train three methods, compare them."""

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
THREE_CASES = {"method.cases": "random=3"}
# Options by method. The first two differ in the cases that they are trained on, the last two in decoupling.
METHODS: dict[str, dict[str, str]] = {"full": {}, "sharing": THREE_CASES, "gmd": THREE_CASES}
EXPLANATION = """\
full: trained on complete samples only. sharing: the same network, trained on three random subsets of the modalities in
every step. gmd: the same, with conflicts between the gradients of the subsets removed (Gradient-guided Modality
Decoupling). All have the same number of floating-point operations, so the three differ in their number of steps."""


def demo_options(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options of `demo`."""
    parser.add_argument("--task", choices=["segmentation", "sentiment"], default="segmentation", help="Task to show.")
    parser.add_argument("--output", type=file_path, help="Folder of data and runs; by default runs/demo[_sentiment].")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the data and of all runs.")
    parser.add_argument(
        "--train.steps", type=int, help="Optimizer steps of each run, in place of equal floating-point operations."
    )


def demo(options: Options) -> None:
    """Generate data; train on complete input, on subsets, and on subsets with GMD; compare them in every scenario.

    The data are synthetic: phantom patients with tumours, or utterances of text, audio and vision. An interrupted demo
    is continued when it is called again.
    """
    sentiment = options.get("task") == "sentiment"
    folder = Path(options.get("output") or ("runs/demo_sentiment" if sentiment else "runs/demo"))
    (demo_sentiment if sentiment else demo_segmentation)(folder, options.get("seed", 0), options.get("train", {}))


def demo_segmentation(folder: Path, seed: int, settings: Options) -> None:
    """Demonstrate on phantom patients; print the Dice of all methods."""
    from anysubset.scoring.scores import means
    from anysubset.volumes.dataset import Volumes
    from anysubset.volumes.phantom import write_phantoms

    patients = folder / "patients"
    if patients.exists():
        check_generated(patients / "splits.json")
    else:
        say(f"Generating synthetic patients in {patients}: enhancing tumour is visible almost only in t1ce")
        write_phantoms(patients, counts=PATIENTS, size=SIZE, seed=seed, writer=DEMO)
    scores, dataset = demo_runs("segmentation", folder, patients, seed, settings)
    assert isinstance(dataset, Volumes)
    tables = {method: means(values, "dice") for method, values in scores.items()}
    show_volume_scores(tables, dataset, "test", "three trainings on synthetic patients", regions=("ET",))
    first = next(iter(dataset.patients.values())).sources["t1"].path.parent
    say(
        f"{EXPLANATION}\n"
        "ET: enhancing tumour, which only t1ce shows well. mean: of WT, TC and ET. Rows without t1ce: it is missing.\n"
        f"Runs: {listed_runs(folder)}; patients: {patients}\n"
        f"Report: {folder / 'report.html'}\n"
        f"Next: anysubset predict {folder / 'sharing'} {first}"
    )


def demo_sentiment(folder: Path, seed: int, settings: Options) -> None:
    """Demonstrate on generated utterances in which text is most informative; print the metrics of all methods."""
    from anysubset.tables.arrays import write_table
    from anysubset.tables.dataset import TableDataset
    from anysubset.tables.trimodal import trimodal

    table = folder / "utterances.npz"
    if table.exists():
        check_generated(table)
    else:
        say(
            f"Generating synthetic utterances in {table}: text is most informative; a training sample lacks each "
            "modality with probability 1/2"
        )
        folder.mkdir(parents=True, exist_ok=True)
        write_table(trimodal(missing_rate=0.5, informed={}, seed=seed), table, DEMO)
    scores, dataset = demo_runs("sentiment", folder, table, seed, settings)
    assert isinstance(dataset, TableDataset)
    show_table_scores(scores, dataset, "test", "three trainings on synthetic utterances", ("acc2", "mae"))
    say(
        f"{EXPLANATION}\n"
        f"Runs: {listed_runs(folder)}; utterances: {table}\n"
        f"Report: {folder / 'report.html'}\n"
        f"Next: anysubset predict {folder / 'sharing'} {table}"
    )


def listed_runs(folder: Path) -> str:
    """The run folders of all methods."""
    return ", ".join(str(folder / method) for method in METHODS)


def check_generated(file: Path) -> None:
    """Raise InputError if a file of the demo's data is not one that it generated."""
    from anysubset.system.written import writer_of

    if writer_of(file) != DEMO:
        raise InputError(f"{file} was not generated by `anysubset demo`, or was changed: choose another --output.")


def demo_runs(
    task: str, folder: Path, root: Path, seed: int, settings: Options
) -> tuple[dict[str, list["Score"]], "Volumes | TableDataset"]:
    """Train all methods, score them on the test split, and write their report.

    settings: of `train`; a number of steps replaces the budget of FLOPs.
    """
    from anysubset.system.written import check_replaceable

    check_replaceable(folder / "report.html", api.REPORT)
    scores = {}
    for method, options in METHODS.items():
        overrides = {"seed": seed, "data.root": str(root), "method.name": method, **options}
        if settings:
            overrides |= {f"train.{name}": value for name, value in settings.items()} | {"train.flops": None}
        experiment = read_experiment(Path(__file__).with_name(f"demo_{task}.yaml"), overrides)
        say()
        api.fit(experiment, run=folder / method, resume=True, report=say, progress=track_steps)
        evaluation = api.evaluate(folder / method, report=say, progress=track_samples)
        scores[method] = evaluation.scores
    api.write_report(
        [folder / method for method in scores],
        output=folder / "report.html",
        reference="sharing",
        images=task == "segmentation",
        report=complain,
    )
    return scores, evaluation.dataset
