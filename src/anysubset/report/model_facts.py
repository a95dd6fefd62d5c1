"""What a model file says about its run: samples by present modalities, and scores by scenario with their intervals.

Everything is read from the run folder; data and weights are not needed.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment
from anysubset.report.differences import score_matrix
from anysubset.report.provenance import stamps
from anysubset.report.reading import result_of
from anysubset.report.results import Result
from anysubset.scenarios import in_order, scenario_name
from anysubset.scoring.prediction_metrics import HEADLINES
from anysubset.scoring.scores import ALL, of_scenarios, read_rows
from anysubset.scoring.statistics import percentile_interval, resampled_means
from anysubset.system.fingerprints import Fingerprints, read_fingerprints
from anysubset.system.run_files import BEST, KNOWLEDGE
from anysubset.system.run_folder import RunFolder, weights_hash
from anysubset.system.tensor_file import read_facts

DIGITS = 6  # Of scores, so that the last bits of a machine's arithmetic do not change the file.
SPLITS = ("val", "test")  # Whose scores are of interest; those of training samples are not.
# The metrics that are stated, of volumes and of tables.
OF_VOLUMES = ("dice",)
USUAL_OF_TABLES = tuple(dict.fromkeys(metric for of_kind in HEADLINES.values() for metric in of_kind))

Scores = dict[str, dict[str, Any]]


def samples_by_modalities(run: Path, modalities: Sequence[str]) -> dict[str, dict[str, int]]:
    """Number of samples of every split by the modalities that they have, such as `flair+t1`.

    Empty for a run of an earlier version, which recorded no fingerprints.

    Args:
        run: the run folder.
        modalities: in the order of the task.
    """
    counts = {}
    for split, samples in (read_fingerprints(RunFolder(run).data) or {}).items():
        present = Counter(tuple(name for name in modalities if name in parts) for parts in samples.values())
        ordered = in_order((scenario for scenario in present if scenario), tuple(modalities))
        counts[split] = {scenario_name(scenario): present[scenario] for scenario in ordered}
    return counts


def scores_by_scenario(run: Path, split: str) -> Scores | None:
    """Scores of a run on a split of its own data: by scenario `n` and `scores`, by name of the metric or region.

    A score is [value], or [value, low, high] with the bounds of a 95 % percentile interval of the bootstrap over
    samples, or over groups of samples where the data have groups. Metrics without values of single samples have no
    interval, and neither has a single sample. None if the split was not scored.

    Args:
        run: the run folder.
        split: such as `test`.

    Raises:
        InputError: if the scores are older than the weights, or the file is damaged.
    """
    folder = RunFolder(run)
    if not folder.scores.is_file():
        return None
    settings = read_run_experiment(run).flat()
    rows = [
        row
        for row in of_scenarios(read_rows(folder.scores))
        if row["split"] == split and row["dataset"] == settings["data.name"]
    ]
    if not rows:
        return None
    if stamps(rows, "weights") - {weights_hash(run)}:
        raise InputError(
            f"The scores of split {split!r} in {folder.scores} are older than the weights: score it again with "
            f"`anysubset evaluate {run} --split {split}`."
        )
    selected, signature = read_facts(folder.best, BEST), read_facts(folder.signature, KNOWLEDGE)
    result = result_of(run, settings["data.name"], rows, settings, selected, signature)
    groups = groups_of((read_fingerprints(folder.data) or {}).get(split, {}), result.sample_ids)
    columns = columns_of(result, groups)
    scores: Scores = {}
    for scenario in result.scenarios:
        by_name = {name: column[scenario_name(scenario)] for name, column in columns.items()}
        count = len(result.ids_by_scenario[scenario])
        scores[scenario_name(scenario)] = {
            "n": count,
            "scores": {key: value for key, value in by_name.items() if value},
        }
    return scores


def groups_of(samples: Fingerprints, ids: Sequence[str]) -> list[str] | None:
    """The group of every sample, by the fingerprints of a split; None unless all of them have one."""
    groups = [samples.get(sample, {}).get("(group)") for sample in ids]
    return [group for group in groups if group is not None] if None not in groups else None


def columns_of(result: Result, groups: Sequence[str] | None) -> dict[str, dict[str, list[float]]]:
    """Scores of a split by metric or region, then by scenario name, as in `scores_by_scenario`."""
    columns = {}
    if result.headline:
        for metric in result.headline:
            columns[metric] = column_of(result, metric, None, groups)
        return columns
    for metric in (name for name in OF_VOLUMES if name in result.metrics):
        regions = result.regions(metric)
        for region in regions:
            columns[metric if region == ALL else f"{metric} {region}"] = column_of(result, metric, region, groups)
        if len(regions) > 1:
            columns[f"{metric} mean"] = column_of(result, metric, None, groups)
    return columns


def column_of(result: Result, metric: str, region: str | None, groups: Sequence[str] | None) -> dict[str, list[float]]:
    """Scores by scenario name of one metric and region; an empty list where the metric is undefined."""
    values = result.scores(metric, region)
    by_sample = result.correct_signs(metric) or result.scores_by_sample(metric, region)
    intervals = {}
    if by_sample is not None:
        matrix = score_matrix(by_sample, result.sample_ids, result.scenarios)
        means = resampled_means(matrix, groups)
        unit_of = range(len(matrix)) if groups is None else groups
        for index, scenario in enumerate(result.scenarios):
            units = {unit for unit, value in zip(unit_of, matrix[:, index], strict=True) if not np.isnan(value)}
            if scenario in values and len(units) > 1:
                intervals[scenario] = percentile_interval(values[scenario], means[:, index])
    column = {}
    for scenario in result.scenarios:
        numbers = [*intervals[scenario]] if scenario in intervals else [values[scenario]] * (scenario in values)
        column[scenario_name(scenario)] = [round(number, DIGITS) for number in numbers]
    return column


def validation_scores(selected: Mapping[str, Any], counts: Mapping[str, int]) -> Scores:
    """Scores of the selected weights on validation, by which they were selected, in the form of `scores_by_scenario`.

    The training records means alone, so they have no intervals.

    Args:
        selected: facts of the selected weights.
        counts: number of validation samples by the modalities that they have; empty if it is unknown.
    """
    scores: Scores = {}
    for scenario, by_region in selected["validation"].items():
        of_table = selected.get("validation_scores", {}).get(scenario, {})
        usual = {metric: of_table[metric] for metric in USUAL_OF_TABLES if metric in of_table}
        metric = selected["metric"]
        names = {region: f"{metric} {region}" if region != ALL else metric for region in by_region}
        by_name = usual or {names[region]: value for region, value in by_region.items()}
        n = sum(count for name, count in counts.items() if set(scenario.split("+")) <= set(name.split("+")))
        values = {name: [round(value, DIGITS)] for name, value in by_name.items()}
        scores[scenario] = {"n": n if counts else None, "scores": values}
    return scores
