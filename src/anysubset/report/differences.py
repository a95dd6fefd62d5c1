"""Differences between methods in every scenario, with confidence intervals, corrected tests and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from anysubset.errors import unknown
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


@dataclass(frozen=True)
class Estimate:
    """A difference before the correction for multiple tests: mean, intervals over samples and seeds, raw p-value."""

    mean: float
    samples: Interval | None
    seeds: Interval | None
    p: float | None


@dataclass(frozen=True)
class Difference:
    """Score of a method minus that of the reference.

    mean: over samples, or over seeds for metrics that are defined only for a set. samples, seeds: confidence intervals
    over these, or None. p: corrected, or None. verdict: in words; empty without a test.
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

    Over samples: paired bootstrap and Wilcoxon signed-rank test of the scores averaged over the seeds that both methods
    share (over all seeds of each method if they share none). Over the shared seeds: Student's t interval, and the
    paired t-test for metrics that are defined only for a set; both are corrected for shared training samples if the
    seeds are folds of a cross-validation. P-values have the Holm correction over
    three families of tests, each with the tests of all methods: the single scenarios, the means by number of missing
    modalities, and the mean over all scenarios.

    Args:
        comparison: the runs.
        reference: one of its methods.
        groups: group by id of every sample, such as its video; a group is drawn as a whole, and tested by its mean.
        draws: number of bootstrap draws.
        seed: of the bootstrap.

    Raises:
        InputError: if the reference is unknown.
    """
    if reference not in comparison.methods:
        raise unknown("reference", reference, comparison.methods)
    ids = comparison.group.sample_ids
    group_labels = None if groups is None else [groups[sample] for sample in ids]
    estimates: dict[str, list[Estimate | None]] = {}
    for method in comparison.methods:
        if method != reference:
            columns = sample_differences(comparison, method, reference, ids)
            resampled = None if columns is None else resampled_means(columns, group_labels, draws, seed)
            estimates[method] = [
                estimate_of(comparison, method, reference, line, columns, resampled, group_labels)
                for line in comparison.lines
            ]
    p_values = corrected_p_values(comparison.lines, estimates)
    return {
        method: [
            None if estimate is None else judged(estimate, p_values.get((method, index)), comparison.higher_is_better)
            for index, estimate in enumerate(by_line)
        ]
        for method, by_line in estimates.items()
    }


def judged(estimate: Estimate, p: float | None, higher_is_better: bool) -> Difference:
    """The difference with its corrected p-value and verdict."""
    intervals = [interval for interval in (estimate.samples, estimate.seeds) if interval is not None]
    words = "" if p is None else verdict(intervals, p, higher_is_better)
    return Difference(estimate.mean, estimate.samples, estimate.seeds, p, words)


def estimate_of(
    comparison: Comparison,
    method: str,
    reference: str,
    line: Line,
    columns: Numbers | None,
    resampled: Numbers | None,
    groups: Sequence[str] | None,
) -> Estimate | None:
    """Difference of a method to the reference in one line of the table; None if one of them has no score there.

    Args:
        comparison: the runs.
        method: the method.
        reference: the reference.
        line: the scenarios over which the mean is taken.
        columns: (samples, scenarios), differences of single samples, or None if the metric has none.
        resampled: (draws, scenarios), bootstrap means of `columns`.
        groups: (samples,), labels of the groups, or None if samples are independent.
    """
    of_method, of_reference = comparison.by_seed(method, line.scenarios), comparison.by_seed(reference, line.scenarios)
    paired = [of_method[seed] - of_reference[seed] for seed in of_method if seed in of_reference]
    overlap = comparison.group.overlap
    over_seeds = t_interval(paired, overlap=overlap) if len(paired) > 1 else None
    if columns is None or resampled is None:
        if not of_method or not of_reference:
            return None
        mean = fmean(paired) if paired else fmean(of_method.values()) - fmean(of_reference.values())
        return Estimate(mean, None, over_seeds, paired_t(paired, overlap) if len(paired) > 1 else None)
    indices = [comparison.group.first.scenarios.index(scenario) for scenario in line.scenarios]
    mean = float(np.nanmean(columns[:, indices], axis=0).mean())
    # A draw without a sample in one of the scenarios has no mean over them (NaN) and is left out.
    over_samples = percentile_interval(mean, resampled[:, indices].mean(axis=1))
    return Estimate(mean, over_samples, over_seeds, signed_rank(unit_means(columns[:, indices], groups)))


def unit_means(columns: Numbers, groups: Sequence[str] | None) -> Numbers:
    """(units,): mean difference of each sample or group over the scenarios; units without a value are left out."""
    defined = ~np.isnan(columns)
    sums, counts = np.where(defined, columns, 0.0).sum(axis=1), defined.sum(axis=1).astype(float)
    if groups is not None:
        sums, counts = summed(sums[:, None], groups)[:, 0], summed(counts[:, None], groups)[:, 0]
    # Rounded, so that values equal up to rounding errors are ties, and 0 is exactly 0.
    means: Numbers = (sums[counts > 0] / counts[counts > 0]).round(12)
    return means


def sample_differences(comparison: Comparison, method: str, reference: str, ids: Sequence[str]) -> Numbers | None:
    """(samples, scenarios): differences of single samples, NaN where undefined.

    None for metrics that are defined only for a set.
    """
    results = comparison.group.results
    common = [seed for seed in results[method] if seed in results[reference]]
    averages = []
    for by_seed in (results[method], results[reference]):
        tables = []
        for seed in common or by_seed:
            by_sample = comparison.scores_by_sample(by_seed[seed])
            if by_sample is None:
                return None
            tables.append(score_matrix(by_sample, ids, comparison.group.first.scenarios))
        averages.append(mean_of_defined(tables))
    differences: Numbers = averages[0] - averages[1]
    return differences


def mean_of_defined(tables: Sequence[Numbers]) -> Numbers:
    """Mean over the seeds of the values that are not NaN; NaN if there is none.

    In a cross-validation, a sample has a value in one fold only.
    """
    stacked = np.stack(tables)
    defined = ~np.isnan(stacked)
    count = defined.sum(axis=0)
    sums = np.where(defined, stacked, 0.0).sum(axis=0)
    means: Numbers = np.where(count > 0, sums / np.maximum(count, 1), np.nan)
    return means


def score_matrix(by_sample: BySample, ids: Sequence[str], scenarios: Sequence[Scenario]) -> Numbers:
    """(samples, scenarios): scores as an array, NaN where a sample has none."""
    return np.array([[by_sample.get(scenario, {}).get(sample, np.nan) for scenario in scenarios] for sample in ids])


def corrected_p_values(
    lines: Sequence[Line], estimates: Mapping[str, Sequence[Estimate | None]]
) -> dict[tuple[str, int], float]:
    """P-values by (method, index of the line), with Holm correction over the lines of one family of all methods."""
    corrected: dict[tuple[str, int], float] = {}
    for family in dict.fromkeys(line.family for line in lines):
        p_values = {
            (method, index): estimate.p
            for method, by_line in estimates.items()
            for index, estimate in enumerate(by_line)
            if estimate is not None and estimate.p is not None and lines[index].family == family
        }
        corrected |= dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return corrected
