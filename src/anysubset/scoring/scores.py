"""Scores: one long table, one row a sample, scenario, metric and region."""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, grouped_by_missing, scenario_name
from anysubset.system.files import whole

COLUMNS = (
    "run", "method", "seed", "dataset", "split", "scenario", "n_missing", "sample", "metric", "region", "value",
)  # fmt: skip


ALL = "all"  # In place of an id, for a metric over the set; in place of a region, where there are none.


@dataclass(frozen=True)
class Score:
    """One number. `sample` is an id, or `all` for a metric over the set; `region` is `all` where there are none."""

    scenario: Scenario
    sample: str
    metric: str
    region: str
    value: float


# Rows of one sample that are no metric: what was predicted, and what is true.
RECORDED = ("prediction", "target")

# Metrics from 0 to 1 that are shown in per cent, under this name.
SHARES = {
    "dice": "Dice",
    "acc2": "Acc-2",
    "f1": "F1",
    "acc2_zero": "Acc-2 has-zero",
    "f1_zero": "F1 has-zero",
    "acc7": "Acc-7",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "ece": "ECE",
}


def shown(metric: str, value: float) -> str:
    """A metric and its value, as people write them.

    >>> shown("dice", 0.7654), shown("mae", 0.7654)
    ('Dice 76.5', 'mae 0.765')
    """
    return f"{SHARES[metric]} {100 * value:.1f}" if metric in SHARES else f"{metric} {value:.3f}"


def heading(metric: str) -> str:
    """What stands above a column of a metric.

    >>> heading("acc2"), heading("mae")
    ('Acc-2 %', 'MAE')
    """
    return f"{SHARES[metric]} %" if metric in SHARES else {"mae": "MAE", "corr": "Corr"}.get(metric, metric)


def number(metric: str, value: float | None) -> str:
    """A metric's value in a column of that heading; blank where there is none.

    >>> number("acc2", 0.7654), number("mae", 0.7654), number("corr", None)
    ('76.5', '0.765', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if metric in SHARES else f"{value:.3f}"


def means(scores: Iterable[Score], metric: str) -> dict[Scenario, dict[str, float]]:
    """Of one metric, the mean over the samples, by scenario and region, in the order of the scores."""
    values: dict[Scenario, dict[str, list[float]]] = {}
    for score in scores:
        if score.metric == metric:
            values.setdefault(score.scenario, {}).setdefault(score.region, []).append(score.value)
    return {
        scenario: {region: fmean(found) for region, found in regions.items()} for scenario, regions in values.items()
    }


def over_set(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """The metrics over the set, by the name of the scenario; none where every metric is a sample's."""
    found: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.sample == ALL:
            found.setdefault(scenario_name(score.scenario), {})[score.metric] = score.value
    return found


def overall(means: Mapping[Scenario, Mapping[str, float]]) -> float:
    """The mean over scenarios and regions, by which checkpoints are chosen."""
    return fmean(value for regions in means.values() for value in regions.values())


def by_number_missing(
    means: Mapping[Scenario, Mapping[str, float]], modalities: Scenario
) -> dict[int, dict[str, float]]:
    """The mean over the scenarios that lack 0, 1, 2, .. modalities, by region."""
    return {
        missing: {region: fmean(means[scenario][region] for scenario in group) for region in means[group[0]]}
        for missing, group in sorted(grouped_by_missing(means, modalities).items())
    }


def write_scores(path: Path, scores: Iterable[Score], modalities: Scenario, facts: Mapping[str, object]) -> None:
    """`scores.csv`; rows of the same run, dataset and split are replaced, others stay.

    facts: `run`, `method`, `seed`, `dataset` and `split` of these scores.
    """
    kept = read_rows(path) if path.exists() else []
    same = {name: str(facts[name]) for name in ("run", "dataset", "split")}
    kept = [row for row in kept if any(row[name] != value for name, value in same.items())]
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        for score in scores:
            writer.writerow(
                {
                    **facts,
                    "scenario": scenario_name(score.scenario),
                    # Blank where it differs from sample to sample, as in `random:0.3`; see `of_scenarios`.
                    "n_missing": "" if set(score.scenario) - set(modalities) else len(modalities) - len(score.scenario),
                    "sample": score.sample,
                    "metric": score.metric,
                    "region": score.region,
                    "value": repr(score.value),
                }
            )


def of_scenarios(rows: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The rows of a `scores.csv` without those of random missing, which are another protocol."""
    return [row for row in rows if row["n_missing"]]


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a `scores.csv`, as text.

    Raises:
        InputError: if the file does not have its columns.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f"{path} is no table of scores; its columns must be {', '.join(COLUMNS)}.")
        return list(reader)
