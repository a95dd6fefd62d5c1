"""`anysubset evaluate`: every scenario on a split."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jsonargparse

from anysubset.commands.given import Given
from anysubset.commands.progress import track_samples
from anysubset.commands.terminal import say, show_random_missing, show_table_scores, show_volume_scores
from anysubset.commands.trained import open_run
from anysubset.system.devices import device_of

if TYPE_CHECKING:
    from anysubset.scoring.scores import Score
    from anysubset.tables.dataset import TableDataset
    from anysubset.volumes.dataset import Volumes


def evaluate_options(parser: jsonargparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--split", default="test", help="A name in the dataset's splits, or `all`.")
    parser.add_argument("--data.root", help="Samples of another place; by default those of the experiment.")
    parser.add_argument("--rate", type=float, nargs="+", help="Also score random missingness at such rates: 0.1 0.3")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the random missingness.")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N.")


def evaluate(given: Given) -> None:
    """Score all scenarios on a split: a table here, every number in the run's scores.csv."""
    from anysubset.report.table import scenario_table
    from anysubset.scoring.scores import means
    from anysubset.tables.dataset import TableDataset

    run, split = Path(given["run"]), given.get("split", "test")
    root = given.get("data", {}).get("root")
    rates, seed = given.get("rate", []), given.get("seed", 0)
    scores, drawn, dataset = score_run(run, split, root, device=given.get("device", "auto"), rates=rates, seed=seed)
    if isinstance(dataset, TableDataset):
        show_table_scores({run.name: scores}, dataset, split, str(run))
    else:
        show_volume_scores({run.name: means(scores, "dice")}, dataset, split, str(run))
        say(scenario_table({run.name: means(scores, "hd95")}, dataset.task.modalities, "HD95 in mm", scale=1.0))
    if drawn:
        show_random_missing(drawn, dataset.headline)
        say(f"Each sample on what one draw leaves of it (seed {seed}, {run / 'missingness'}); in no mean above.")
    say(f"Scores: {run / 'scores.csv'}")


def score_run(
    folder: Path,
    split: str,
    root: str | None,
    *,
    device: str = "auto",
    rates: Sequence[float] = (),
    seed: int = 0,
) -> tuple[list["Score"], list["Score"], "Volumes | TableDataset"]:
    """Score a run on a split, into its `scores.csv`: the scores of the scenarios, and those of random missing."""
    from anysubset.datasets.table import create_dataset
    from anysubset.evaluation.availability import write_availability
    from anysubset.evaluation.every_scenario import evaluate as evaluate_method
    from anysubset.evaluation.random_missingness import draw_masks, under_masks, write_masks
    from anysubset.scoring.scores import write_scores
    from anysubset.system import processes

    processes.join(device_of(device).type)
    opened = open_run(folder, device)
    experiment = opened.experiment.at(root)
    dataset = create_dataset(experiment.data, experiment.model, say, opened.signature)
    if root is None:
        dataset.check_trained()
    masks = draw_masks(dataset, split, rates, seed)
    dataset.prepare(split)
    found = evaluate_method(
        opened.method,
        dataset,
        split,
        progress=lambda samples: track_samples(samples, "Scoring", len(processes.share(dataset.ids(split)))),
    )
    facts = {
        "run": folder.name,
        "method": experiment.method["name"],
        "seed": experiment.seed,
        # Samples of another place must not replace the scores of the experiment's own.
        "dataset": experiment.data.name if root is None else str(Path(root).resolve()),
        "split": split,
    }
    drawn = under_masks(found, masks, dataset)
    if processes.rank() == 0:
        if root is None:
            write_availability(folder / "availability.json", dataset)
        write_masks(folder / "missingness", masks, dataset, split, seed)
        write_scores(folder / "scores.csv", [*found, *drawn], dataset.task.modalities, facts)
    return found, drawn, dataset
