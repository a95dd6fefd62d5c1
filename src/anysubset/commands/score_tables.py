"""Tables of scores: of one run in every scenario, of random missingness, and of the runs of a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anysubset.commands.terminal import say, say_grid, say_table

if TYPE_CHECKING:
    from anysubset.report.table import Means
    from anysubset.scoring.scores import Score
    from anysubset.tables.dataset import TableDataset
    from anysubset.volumes.dataset import Volumes
    from anysubset.workflows.evaluating import Evaluation


def show_scores(evaluation: "Evaluation", run: Path, split: str) -> None:
    """Print the scores of one run: every scenario, then random missingness if it was scored."""
    from anysubset.report.table import scenario_grid
    from anysubset.scoring.scores import means
    from anysubset.tables.dataset import TableDataset

    dataset, scores = evaluation.dataset, evaluation.scores
    title = f"{run}; recipe {evaluation.recipe}" if evaluation.recipe is not None else str(run)
    if isinstance(dataset, TableDataset):
        show_table_scores({run.name: scores}, dataset, split, title)
    else:
        show_volume_scores({run.name: means(scores, "dice")}, dataset, split, title)
        say_grid(scenario_grid({run.name: means(scores, "hd95")}, dataset.task.modalities, "HD95 in mm", scale=1.0))
    if evaluation.random:
        show_random_missing(evaluation.random, dataset.headline)


def show_volume_scores(tables: Mapping[str, "Means"], dataset: "Volumes", split: str, title: str) -> None:
    """The scenario table of Dice, and the protocol that it stands under."""
    from anysubset.report.table import scenario_grid

    title = f"Dice in %, {title}; split {split!r}, {len(dataset.ids(split))} {dataset.noun}"
    say()
    say_grid(scenario_grid(tables, dataset.task.modalities, title))
    say(
        "Hard Dice per patient on whole volumes, then the mean; both empty 1, one empty 0. Weights chosen on "
        f"validation. Split {dataset.split_hash(split)}."
    )


def show_table_scores(
    runs: Mapping[str, Sequence["Score"]],
    dataset: "TableDataset",
    split: str,
    title: str,
    metrics: Sequence[str] = (),
) -> None:
    """Some metrics, by default the headline ones, of every scenario side by side; constants and the protocol below."""
    from anysubset.report.table import metric_grid
    from anysubset.scenarios import all_scenarios, scenario_name, support
    from anysubset.scoring.scores import over_set

    names = dataset.task.modalities
    counts = support(dataset.present(split), all_scenarios(names))
    eligible = {scenario: count for scenario, count in counts.items() if count}
    values = {}
    for run, scores in runs.items():
        found = over_set(scores)
        values[run] = {scenario: found[scenario_name(scenario)] for scenario in eligible}
    title = f"{title}; split {split!r}, {len(dataset.ids(split))} {dataset.noun}"
    say()
    say_grid(metric_grid(values, names, title, metrics or dataset.headline, eligible, dataset.constants(split)))
    say(
        f"{dataset.protocol} A scenario is scored on the samples that have its modalities (n). Weights chosen on "
        f"validation, by the mean loss over the scenarios. Split {dataset.split_hash(split)}."
    )


def show_random_missing(drawn: Sequence["Score"], headline: Sequence[str]) -> None:
    """A row a rate; columns are the headline metrics over the set, or the Dice of each region where there are none."""
    from anysubset.scoring.scores import heading, means, number, over_set

    if headline:
        found = over_set(drawn)
        rows = {
            name: {heading(each): number(each, values.get(each)) for each in headline} for name, values in found.items()
        }
    else:
        found = {name: regions for (name,), regions in means(drawn, "dice").items()}
        rows = {
            name: {f"Dice {region} %": number("dice", value) for region, value in regions.items()}
            for name, regions in found.items()
        }
    say_table(["rate", *next(iter(rows.values()))], [[name, *cells.values()] for name, cells in rows.items()])


def show_results(lines: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> None:
    """A row a run of a sweep: how it was chosen on validation, and means over the scenarios of each split."""
    from anysubset.scoring.scores import heading, number, shown

    listed = ("dice", "accuracy", "macro_f1", "acc2", "mae", "corr")
    asked = [(split, metric) for split in splits for metric in listed]
    found = [(split, metric) for split, metric in asked if any(f"{split} {metric}" in line for line in lines)]
    rows = []
    for line in lines:
        chosen = shown(line["metric"], line["validation"]) if "metric" in line else "-"
        cells = [number(metric, line.get(f"{split} {metric}")) for split, metric in found]
        rows.append([line["run"], chosen, str(line.get("step", "")), *cells])
    say_table(["run", "validation", "at step", *(f"{split}\n{heading(metric)}" for split, metric in found)], rows)
