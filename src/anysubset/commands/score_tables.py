"""Tables of scores: one run in every scenario, random missingness, and the runs of a sweep."""

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
    """Print the scores of one run in every scenario, then those with missing modalities or frames, if there are any."""
    from anysubset.report.region_table import region_grid
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
        say_grid(region_grid(scores, "Means over patients, then over all scenarios"))
    line = calibration_line(scores)
    if line is not None:
        say(line)
    if evaluation.random:
        show_rates(evaluation.random, dataset.headline)
    if evaluation.frames:
        show_rates(evaluation.frames, dataset.headline)


def calibration_line(scores: Sequence["Score"]) -> str | None:
    """Metrics of probabilities with and without the temperatures of the run; None if it has no temperatures."""
    from anysubset.scoring.calibration import UNCALIBRATED
    from anysubset.scoring.scores import mean_over_scenarios, means, number, shown

    parts = []
    for metric in ("loss", "nll", "ece", "brier"):
        before = means(scores, f"{metric}{UNCALIBRATED}")
        if before:
            after = shown(metric, mean_over_scenarios(means(scores, metric)))
            parts.append(f"{after} (before {number(metric, mean_over_scenarios(before))})")
    return f"Probabilities calibrated on validation: {', '.join(parts)}; means over all scenarios." if parts else None


def show_volume_scores(
    tables: Mapping[str, "Means"], dataset: "Volumes", split: str, title: str, regions: Sequence[str] | None = None
) -> None:
    """Print Dice by scenario and region, then how it was computed and how the weights were selected.

    regions: those that have a column, besides the mean over all regions; by default all.
    """
    from anysubset.report.protocol import METRIC_DEFINITIONS
    from anysubset.report.table import scenario_grid

    title = f"Dice in %, {title}; split {split!r}, {len(dataset.ids(split))} {dataset.noun}"
    say()
    say_grid(scenario_grid(tables, dataset.task.modalities, title, regions=regions))
    rules = "".join(f"{rule} " for rule in (dataset.task.threshold_rule, dataset.task.size_rule) if rule)
    say(
        f"{METRIC_DEFINITIONS['dice']} {rules}Weights selected on validation. Fingerprint of the split: "
        f"{dataset.split_hash(split)}."
    )


def show_table_scores(
    runs: Mapping[str, Sequence["Score"]],
    dataset: "TableDataset",
    split: str,
    title: str,
    metrics: Sequence[str] = (),
) -> None:
    """Print metrics, by default the headline ones, by scenario; then constant baselines and how metrics are defined."""
    from anysubset.report.table import metric_grid
    from anysubset.scenarios import scenario_name, scored_scenarios, support
    from anysubset.scoring.scores import over_set

    names = dataset.task.modalities
    counts = support(dataset.present(split), scored_scenarios(names))
    eligible = {scenario: count for scenario, count in counts.items() if count}
    values = {}
    for run, scores in runs.items():
        by_scenario = over_set(scores)
        values[run] = {scenario: by_scenario[scenario_name(scenario)] for scenario in eligible}
    title = f"{title}; split {split!r}, {len(dataset.ids(split))} {dataset.noun}"
    say()
    say_grid(metric_grid(values, names, title, metrics or dataset.headline, eligible, dataset.constants(split)))
    say(
        f"{dataset.protocol} A scenario is scored on the samples that have its modalities (n). Weights selected on "
        f"validation, by the mean loss over the scenarios. Fingerprint of the split: {dataset.split_hash(split)}."
    )


def show_rates(drawn: Sequence["Score"], headline: Sequence[str]) -> None:
    """Print one row per rate: the headline metrics over the set or, without headline metrics, Dice by region."""
    from anysubset.scoring.scores import heading, means, number, over_set

    if headline:
        rows = {
            name: {heading(metric): number(metric, values.get(metric)) for metric in headline}
            for name, values in over_set(drawn).items()
        }
    else:
        rows = {
            name: {f"Dice {region} %": number("dice", value) for region, value in regions.items()}
            for (name,), regions in means(drawn, "dice").items()
        }
    say_table(["rate", *next(iter(rows.values()))], [[name, *cells.values()] for name, cells in rows.items()])


def show_results(results: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> None:
    """Print one row per run of a sweep: validation score and step of the selected weights, mean scores by split."""
    from anysubset.scoring.scores import heading, number, shown

    metrics = ("dice", "accuracy", "macro_f1", "acc2", "acc2_sims", "mae", "corr")
    columns = [
        (split, metric)
        for split in splits
        for metric in metrics
        if any(f"{split} {metric}" in result for result in results)
    ]
    rows = []
    for result in results:
        validation = shown(result["metric"], result["validation"]) if "metric" in result else "-"
        cells = [number(metric, result.get(f"{split} {metric}")) for split, metric in columns]
        rows.append([result["run"], validation, str(result.get("step", "")), *cells])
    say_table(["run", "validation", "at step", *(f"{split}\n{heading(metric)}" for split, metric in columns)], rows)
