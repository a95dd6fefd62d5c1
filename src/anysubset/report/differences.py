"""Is one method better than another in some scenario: their difference, how sure it is, and the answer in words."""

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

# The mean difference, its intervals over samples and over seeds, and p before it is corrected.
Raw = tuple[float, Interval | None, Interval | None, float | None]


@dataclass(frozen=True)
class Difference:
    """A method's score less that of the reference.

    mean: over samples or seeds. samples, seeds: intervals, where there are any. p: corrected, where there is one.
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
    """For every other method, its difference to the reference in each line of the table; None where it has none.

    Over samples: of the mean over the seeds that both have (or over each one's own, where they share none), the paired
    bootstrap, and Wilcoxon's test. Over seeds that both have: Student's interval; and its test, where a sample alone
    has no such metric. The p-values are corrected by Holm, over all methods: those of the scenarios together, those of
    the numbers missing, and those over all scenarios.

    Args:
        comparison: the runs.
        reference: one of its methods.
        groups: by sample, such as videos; samples of one group are drawn together, and tested by their mean.
        draws: of the bootstrap.
        seed: of the draws.

    Raises:
        InputError: if there is no such reference, or a sample has no group.
    """
    if reference not in comparison.methods:
        raise unknown("reference", reference, comparison.methods)
    ids = comparison.group.everybody
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
    """A difference with its verdict; without a test there is none to give."""
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
    """One line: the mean difference, both intervals, and p before it is corrected."""
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
    # A draw without a sample of some scenario says nothing of the mean over them.
    samples = percentile_interval(mean, means[:, places].mean(axis=1))
    return mean, samples, seeds, signed_rank(by_unit(columns[:, places], groups))


def by_unit(columns: Numbers, groups: Sequence[str] | None) -> Numbers:
    """(units,): the mean difference of each sample, or of each group; those without a value are left out."""
    known = ~np.isnan(columns)
    sums, counts = np.where(known, columns, 0.0).sum(axis=1), known.sum(axis=1).astype(float)
    if groups is not None:
        sums, counts = summed(sums[:, None], groups)[:, 0], summed(counts[:, None], groups)[:, 0]
    # Rounded, so that what is equal but for the last digit ties, and what is nothing is 0.
    found: Numbers = (sums[counts > 0] / counts[counts > 0]).round(12)
    return found


def differences_of_samples(comparison: Comparison, method: str, reference: str, ids: Sequence[str]) -> Numbers | None:
    """(samples, scenarios), NaN where a sample has no value; None where no sample has the metric by itself."""
    mine, theirs = (comparison.group.results[each] for each in (method, reference))
    common = [seed for seed in mine if seed in theirs]
    averages = []
    for results in (mine, theirs):
        tables = [comparison.of_samples(results[seed]) for seed in common or results]
        found = [table for table in tables if table is not None]
        if len(found) < len(tables):
            return None
        averages.append(mean_of_known([matrix(table, ids, comparison.group.first.scenarios) for table in found]))
    columns: Numbers = averages[0] - averages[1]
    return columns


def mean_of_known(values: Sequence[Numbers]) -> Numbers:
    """Over the seeds, entry by entry; a sample of a cross-validation has a value in its own fold alone."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    found: Numbers = np.where(count > 0, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return found


def matrix(values: BySample, ids: Sequence[str], columns: Sequence[Scenario]) -> Numbers:
    """(samples, scenarios), NaN where there is no value."""
    return np.array([[values.get(scenario, {}).get(each, np.nan) for scenario in columns] for each in ids])


def corrected_by_family(
    lines: Sequence[Line],
    raw: Mapping[str, Sequence[Raw | None]],
) -> dict[tuple[str, int], float]:
    """By method and line, Holm's p over the lines of the same kind of all methods."""
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
        InputError: if there is no such file, it lacks a column, or names a sample twice.
    """
    if not path.is_file():
        raise InputError(f"There is no file of groups {path}.")
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
    """(samples,): whose each is."""
    absent = [each for each in ids if not groups.get(each)]
    if absent:
        raise InputError(f"{len(absent)} samples have no group, {absent[0]!r} among them.")
    return [groups[each] for each in ids]
