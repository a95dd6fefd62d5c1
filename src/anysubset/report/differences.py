"""Differences between methods in every scenario, with confidence intervals, corrected tests and a verdict."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from anysubset.errors import InputError, unknown
from anysubset.report.comparison import Comparison
from anysubset.report.results import BySample
from anysubset.report.table import Line
from anysubset.scenarios import Scenario
from anysubset.scoring.statistics import (
    DRAWS,
    Interval,
    Numbers,
    holm,
    paired_t,
    percentile_interval,
    resampled_means,
    signed_rank,
    summed,
    t_interval,
    verdict,
)

# Mean difference, its intervals over samples and over seeds, and the uncorrected p-value.
Raw = tuple[float, Interval | None, Interval | None, float | None]


@dataclass(frozen=True)
class Difference:
    """Score of a method minus that of the reference.

    mean: over samples or seeds. samples, seeds: confidence intervals, None if there is none. p: corrected, or None.
    """

    mean: float
    samples: Interval | None
    seeds: Interval | None
    p: float | None
    verdict: str


def compare(
    comparison: Comparison,
    reference: str,
    groups: Mapping[str, str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, list[Difference | None]]:
    """Difference of every other method to the reference, in each line of the table; None where it is undefined.

    Over samples: paired bootstrap and Wilcoxon's test, of the mean over the seeds that both methods share (over all
    seeds of each if they share none). Over the shared seeds: Student's t interval, and the paired t-test for metrics
    that only a set has. P-values are corrected by Holm over all methods, separately for the scenarios, the numbers of
    missing modalities, and the mean over all scenarios.

    Args:
        comparison: the runs.
        reference: one of its methods.
        groups: group of each sample, such as its video; a group is drawn as a whole, and tested by its mean.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        InputError: if the reference is unknown, or a sample has no group.
    """
    if reference not in comparison.methods:
        raise unknown("reference", reference, comparison.methods)
    ids = comparison.group.sample_ids
    named = None if groups is None else groups_of(ids, groups)
    raw: dict[str, list[Raw | None]] = {}
    for method in comparison.methods:
        if method != reference:
            columns = differences_of_samples(comparison, method, reference, ids)
            means = None if columns is None else resampled_means(columns, named, draws, seed)
            raw[method] = [
                difference(comparison, method, reference, line, columns, means, named) for line in comparison.lines
            ]
    corrected = corrected_by_family(comparison.lines, raw)
    return {
        method: [
            None if each is None else judged(*each[:3], corrected.get((method, place)), comparison.higher)
            for place, each in enumerate(found)
        ]
        for method, found in raw.items()
    }


def judged(mean: float, samples: Interval | None, seeds: Interval | None, p: float | None, higher: bool) -> Difference:
    """A difference with its verdict, which is empty if there is no test."""
    intervals = [each for each in (samples, seeds) if each is not None]
    words = "" if p is None else verdict(intervals, p, higher)
    return Difference(mean, samples, seeds, p, words)


def difference(
    comparison: Comparison,
    method: str,
    reference: str,
    line: Line,
    columns: Numbers | None,
    means: Numbers | None,
    groups: Sequence[str] | None,
) -> Raw | None:
    """One line: mean difference, both intervals and the uncorrected p-value; None if a method has no score."""
    mine, theirs = comparison.by_seed(method, line.scenarios), comparison.by_seed(reference, line.scenarios)
    paired = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    seeds = t_interval(paired) if len(paired) > 1 else None
    if columns is None or means is None:
        if not mine or not theirs:
            return None
        mean = fmean(paired) if paired else fmean(mine.values()) - fmean(theirs.values())
        return mean, None, seeds, paired_t(paired) if len(paired) > 1 else None
    places = [comparison.group.first.scenarios.index(scenario) for scenario in line.scenarios]
    mean = float(np.nanmean(columns[:, places], axis=0).mean())
    # A draw without a sample in one of the scenarios has no mean over them (NaN), and is left out.
    samples = percentile_interval(mean, means[:, places].mean(axis=1))
    return mean, samples, seeds, signed_rank(by_unit(columns[:, places], groups))


def by_unit(columns: Numbers, groups: Sequence[str] | None) -> Numbers:
    """(units,): mean difference of each sample or group over the scenarios; units without a value are left out."""
    known = ~np.isnan(columns)
    sums, counts = np.where(known, columns, 0.0).sum(axis=1), known.sum(axis=1).astype(float)
    if groups is not None:
        sums, counts = summed(sums[:, None], groups)[:, 0], summed(counts[:, None], groups)[:, 0]
    # Rounded, so that values equal up to rounding errors are ties, and 0 is exactly 0.
    found: Numbers = (sums[counts > 0] / counts[counts > 0]).round(12)
    return found


def differences_of_samples(comparison: Comparison, method: str, reference: str, ids: Sequence[str]) -> Numbers | None:
    """(samples, scenarios): differences per sample, NaN where undefined; None for metrics that only a set has."""
    mine, theirs = (comparison.group.results[each] for each in (method, reference))
    common = [seed for seed in mine if seed in theirs]
    averages = []
    for results in (mine, theirs):
        tables = [comparison.scores_by_sample(results[seed]) for seed in common or results]
        found = [table for table in tables if table is not None]
        if len(found) < len(tables):
            return None
        averages.append(mean_of_known([matrix(table, ids, comparison.group.first.scenarios) for table in found]))
    columns: Numbers = averages[0] - averages[1]
    return columns


def mean_of_known(values: Sequence[Numbers]) -> Numbers:
    """Mean over the seeds of what is not NaN; in a cross-validation a sample has a value in one fold only."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    found: Numbers = np.where(count > 0, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return found


def matrix(values: BySample, ids: Sequence[str], columns: Sequence[Scenario]) -> Numbers:
    """(samples, scenarios): scores as an array, NaN where a sample has none."""
    return np.array([[values.get(scenario, {}).get(each, np.nan) for scenario in columns] for each in ids])


def corrected_by_family(
    lines: Sequence[Line],
    raw: Mapping[str, Sequence[Raw | None]],
) -> dict[tuple[str, int], float]:
    """Corrected p-values by method and line: Holm over the lines of one family, of all methods together."""
    found: dict[tuple[str, int], float] = {}
    for family in dict.fromkeys(line.family for line in lines):
        p_values = {
            (method, place): each[3]
            for method, values in raw.items()
            for place, each in enumerate(values)
            if each is not None and each[3] is not None and lines[place].family == family
        }
        found |= dict(zip(p_values, holm([p for p in p_values.values() if p is not None]), strict=True))
    return found


def read_groups(path: Path) -> dict[str, str]:
    """The group of each sample, from a CSV file with the columns `id` and `group`.

    Raises:
        InputError: if the file does not exist, lacks a column, or names a sample twice.
    """
    if not path.is_file():
        raise InputError(f"The file of groups {path} does not exist.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"id", "group"} <= set(reader.fieldnames or ()):
            raise InputError(f"{path} must have the columns id and group, not {', '.join(reader.fieldnames or ())}.")
        found: dict[str, str] = {}
        for row in reader:
            if row["id"] in found:
                raise InputError(f"{path} names {row['id']!r} twice.")
            found[row["id"]] = row["group"]
    return found


def groups_of(ids: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """(samples,): the group of each sample. Raises InputError if one has none."""
    absent = [each for each in ids if not groups.get(each)]
    if absent:
        raise InputError(f"{len(absent)} samples have no group in the file, such as {absent[0]!r}.")
    return [groups[each] for each in ids]
