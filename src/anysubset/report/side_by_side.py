"""Tables of a comparison of methods, and the protocol printed below them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

from anysubset.errors import unknown
from anysubset.report.comparison import Comparison
from anysubset.report.differences import Difference, compare, read_groups
from anysubset.report.grid import Grid
from anysubset.report.groups import BOOKKEEPING_SETTINGS, RunGroup, varies
from anysubset.report.table import rules_of
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring import robustness
from anysubset.scoring.scores import SHARES, number
from anysubset.scoring.statistics import DRAWS, Interval

# Printed for an undefined value.
BLANK = ""
INTERVALS = ("95 % over samples", "95 % over seeds")
JUDGED = ("difference", *INTERVALS, "p", "verdict")


def grids(
    group: RunGroup,
    metric: str | None = None,
    region: str | None = None,
    reference: str | None = None,
    groups: Path | None = None,
    rates: Mapping[str, float] | None = None,
    draws: int = DRAWS,
) -> list[Grid]:
    """All tables of one dataset: scores, contributions of modalities, differences to a reference, and verdicts.

    Args:
        group: the runs.
        metric: by default the first that was scored of `USUAL`.
        region: of the metric, or None for the mean over its regions.
        reference: a label in the tables, or a method with a single label; by default `sharing`, `ensemble` or the
            first method.
        groups: file with the group of each sample, such as its video; None if samples are independent.
        rates: by modality, the probability that it is missing in use, 0 for modalities not named; None leaves out the
            expected score.
        draws: of the bootstrap.

    Raises:
        InputError: if metric, region, reference or modality are unknown, or a rate is not a probability.
    """
    comparison = Comparison(group, metric or group.first.metrics[0], region)
    chosen = reference_of(group, reference)
    together = None if groups is None else read_groups(groups)
    differences = compare(comparison, chosen, together, draws)
    tables = [difference_grid(comparison, method, chosen, found) for method, found in differences.items()]
    if tables:
        notes = tested(comparison, chosen, together is not None)
        tables.append(replace(verdict_grid(comparison, chosen, differences), notes=notes))
    return [scores_grid(comparison), robustness_grid(comparison, rates), *tables]


def reference_of(group: RunGroup, asked: str | None) -> str:
    """Label of the method that others are compared with."""
    for name in [asked] if asked is not None else ["sharing", "ensemble"]:
        labels = group.labels_of_method(name)
        if len(labels) == 1 or (labels and asked is None):
            return labels[0]
    return asked or next(iter(group.results))


def scores_grid(comparison: Comparison) -> Grid:
    """A row per scenario, a column per method: mean and standard deviation over its seeds."""
    rows = [
        [*line.cells, *(spread(comparison, method, line.scenarios) for method in comparison.methods)]
        for line in comparison.lines
    ]
    rules = rules_of(comparison.lines)
    gap = [""] * len(comparison.modalities)
    if comparison.constants:
        rules.append(len(rows))
    for name, value in comparison.constants.items():
        rows.append([name, *gap, *([number(comparison.metric, value)] * len(comparison.methods))])
    head = ["", *comparison.modalities, *comparison.methods]
    return Grid(comparison.title, head, rows, rules, protocol(comparison))


def spread(comparison: Comparison, method: str, some: Sequence[Scenario]) -> str:
    """`mean ± standard deviation` over the seeds, or the score of a single seed; blank if a seed has none."""
    values = list(comparison.by_seed(method, some).values())
    if len(values) < len(comparison.scores[method]):
        return BLANK
    shown = number(comparison.metric, fmean(values))
    return f"{shown} ± {number(comparison.metric, stdev(values))}" if len(values) > 1 else shown


def difference_grid(
    comparison: Comparison, method: str, reference: str, differences: Sequence[Difference | None]
) -> Grid:
    """A row per scenario: score of a method minus that of the reference, confidence intervals, p and verdict."""
    rows = [
        [*line.cells, *judged(comparison.metric, found)]
        for line, found in zip(comparison.lines, differences, strict=True)
    ]
    head = ["", *comparison.modalities, *JUDGED]
    title = f"{method} less {reference}: {comparison.title}"
    return without_blank(Grid(title, head, rows, rules_of(comparison.lines)), INTERVALS)


def verdict_grid(
    comparison: Comparison, reference: str, differences: Mapping[str, Sequence[Difference | None]]
) -> Grid:
    """A row per method: its mean over all scenarios, and the difference of that to the reference."""
    every = comparison.lines[-1].scenarios
    rows = [[reference, spread(comparison, reference, every), *([BLANK] * (len(JUDGED) - 1)), "reference"]]
    for method, found in differences.items():
        rows.append([method, spread(comparison, method, every), *judged(comparison.metric, found[-1])])
    title = f"All scenarios, less {reference}: {comparison.title}"
    return without_blank(Grid(title, ["method", "mean", *JUDGED], rows, rules=[1]), INTERVALS)


def judged(metric: str, found: Difference | None) -> list[str]:
    """Cells of a difference: its mean, intervals, p and verdict; blank for None."""
    if found is None:
        return [BLANK] * len(JUDGED)
    return [
        signed(metric, found.mean),
        between(metric, found.samples),
        between(metric, found.seeds),
        BLANK if found.p is None else probability(found.p),
        found.verdict,
    ]


def without_blank(grid: Grid, names: Sequence[str]) -> Grid:
    """The table without those of the named columns that are blank in every row."""
    kept = [place for place, name in enumerate(grid.head) if name not in names or any(row[place] for row in grid.rows)]
    return replace(
        grid, head=[grid.head[place] for place in kept], rows=[[row[place] for place in kept] for row in grid.rows]
    )


def robustness_grid(comparison: Comparison, rates: Mapping[str, float] | None = None) -> Grid:
    """A row per method: worst scenario, gain and area, Shapley values, and where one more modality makes it worse.

    rates: as in `grids`.
    """
    chances = {} if rates is None else robustness.scenario_chances(comparison.modalities, every_rate(comparison, rates))
    empty, source = empty_score(comparison)
    names = comparison.modalities if source else ()
    rows = []
    for method in comparison.methods:
        values = comparison.over_seeds(method)
        # Numbers that need a scenario without scores are blank.
        complete = len(values) == 2 ** len(comparison.modalities) - 1
        row = [method, *worst_in_words(comparison, values)]
        if complete:
            row.append(signed(comparison.metric, robustness.gain(values, comparison.modalities, comparison.higher)))
            row.append(number(comparison.metric, robustness.area(values, comparison.modalities)))
        else:
            row += [BLANK, BLANK]
        if rates is not None:
            known = all(scenario in values for scenario in chances)
            row.append(number(comparison.metric, robustness.expected(values, chances)) if known else BLANK)
        if complete and source:
            worth = robustness.shapley(values, comparison.modalities, empty)
            row += [signed(comparison.metric, worth[name]) for name in names]
            row.append(pair_in_words(comparison, robustness.interactions(values, comparison.modalities, empty)))
        else:
            row += [BLANK] * (len(names) + bool(source))
        rows.append([*row, violations_in_words(comparison, values)])
    expected = [] if rates is None else ["expected"]
    head = ["method", "worst", "where", "gain", "area", *expected, *names, *(["strongest pair"] if source else [])]
    notes = [
        "gain: of all modalities over the best single one, > 0 if all are better. area: under the curve of mean "
        "score against number of missing modalities.",
        "worse with more: number of cases in which adding a modality makes the score worse, and the largest. Of means "
        "over the seeds.",
    ]
    if rates is not None:
        words = ", ".join(f"{name} with probability {rate:g}" for name, rate in rates.items())
        notes.append(
            f"expected: mean score if samples lack {words}, independently; samples without any modality are left out."
        )
    if source:
        same, apart = "are redundant", "are complementary"
        notes.append(
            f"Columns of modalities: exact Shapley values, from {number(comparison.metric, empty)} ({source}) without "
            "any. Strongest pair: Shapley interaction, < 0 where the two "
            f"{same if comparison.higher else apart}, > 0 where they {apart if comparison.higher else same}."
        )
    title = f"What modalities are worth: {comparison.title}"
    return Grid(title, [*head, "worse with more"], rows, notes=notes)


def every_rate(comparison: Comparison, rates: Mapping[str, float]) -> dict[str, float]:
    """Rates of all modalities, 0 for those not named.

    Raises:
        InputError: if a name is not a modality of the task.
    """
    for name in rates:
        if name not in comparison.modalities:
            raise unknown("modality", name, comparison.modalities)
    return {name: rates.get(name, 0.0) for name in comparison.modalities}


def worst_in_words(comparison: Comparison, values: Mapping[Scenario, float]) -> list[str]:
    """Cells of the worst score and its scenario."""
    if not values:
        return [BLANK, BLANK]
    scenario, value = robustness.worst(values, comparison.higher)
    return [number(comparison.metric, value), scenario_name(scenario)]


def violations_in_words(comparison: Comparison, values: Mapping[Scenario, float]) -> str:
    """Number of violations, and the largest one."""
    found = robustness.violations(values, comparison.higher)
    if not found:
        return "0"
    return f"{len(found)}: {found[0].added} to {scenario_name(found[0].scenario)} {change(comparison, found[0])}"


def change(comparison: Comparison, violation: robustness.Violation) -> str:
    """Signed change of the score by a modality that makes it worse."""
    return signed(comparison.metric, -violation.loss if comparison.higher else violation.loss)


def pair_in_words(comparison: Comparison, pairs: Mapping[tuple[str, str], float]) -> str:
    """The pair with the largest absolute interaction; blank for a single modality."""
    if not pairs:
        return BLANK
    pair = max(pairs, key=lambda each: abs(pairs[each]))
    return f"{scenario_name(pair)} {signed(comparison.metric, pairs[pair])}"


def empty_score(comparison: Comparison) -> tuple[float | None, str]:
    """Score of a prediction without any input, and its name; the name is empty if the score is unknown."""
    for name in ("median of training", "majority of training"):
        if name in comparison.constants:
            return comparison.constants[name], f"the {name}"
    classes = len(comparison.group.first.signature.get("classes", ()))
    if comparison.metric == "accuracy" and classes:
        return 1 / classes, f"one of {classes} classes"
    return (0.0, "nothing right") if comparison.metric in ("dice", "corr") else (None, "")


def signed(metric: str, value: float) -> str:
    """A signed difference, in the units of the metric's column.

    >>> signed("acc2", 0.0412), signed("mae", -0.02), signed("mae", -0.0001)
    ('+4.1', '-0.020', '0.000')
    """
    shown = f"{100 * value:+.1f}" if metric in SHARES else f"{value:+.3f}"
    return shown if float(shown) else shown[1:]


def between(metric: str, interval: Interval | None) -> str:
    """`low to high`; blank for None."""
    return BLANK if interval is None else f"{signed(metric, interval.low)} to {signed(metric, interval.high)}"


def probability(p: float) -> str:
    """A p-value with three digits, or `< .001`."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


# -------------------------------------------------------------------------------------------------- protocol

RULES: dict[str, str] = {
    "dice": "Hard Dice per patient on whole volumes, then the mean; both empty 1, one empty 0.",
    "hd95": "HD95 in mm per patient, then the mean; less is better.",
    "ece": "ECE: expected calibration error of the voxels of the box around the head, ten bins; less is better.",
    "acc2": "Acc-2: the sign (> 0) where the target is not 0.",
    "f1": "F1: of the signs (> 0) where the target is not 0, weighted by true counts.",
    "acc2_zero": "Acc-2 has-zero: negative or not (>= 0), all samples.",
    "f1_zero": "F1 has-zero: negative or not (>= 0), all samples, weighted by true counts.",
    "acc7": "Acc-7: clipped and rounded, half to even.",
    "mae": "MAE: mean absolute error, without clipping; less is better.",
    "corr": "Corr: Pearson's.",
    "macro_f1": "Macro F1: over the classes of the split.",
    "weighted_f1": "Weighted F1: by true counts.",
    "loss": "The loss of each sample; less is better.",
}


def protocol(comparison: Comparison) -> list[str]:
    """Notes below a table: definition of the metric, selection of weights, seeds, differing settings."""
    group = comparison.group
    chosen = {result.selected_by for result in group.all_results}
    rule = f"by the mean {' or '.join(sorted(chosen))} over the scenarios" if all(chosen) else "by a rule not on record"
    seeds = "; ".join(f"{method} {', '.join(map(str, by_seed))}" for method, by_seed in group.results.items())
    same = len({tuple(by_seed) for by_seed in group.results.values()}) == 1
    every = ", ".join(map(str, next(iter(group.results.values()))))
    notes = [
        " ".join([RULES.get(comparison.metric, ""), f"Weights chosen on validation, {rule}."]).strip(),
        f"Mean ± standard deviation over seeds{folds(comparison)}: {every if same else seeds}. {counts(comparison)}",
    ]
    notes += [f"Recipe: {line}." for line in recipes(comparison)]
    apart = differing(comparison)
    if apart:
        notes.append(f"Settings that differ: {'; '.join(apart)}.")
    return notes + comparison.lacking_targets


def recipes(comparison: Comparison) -> list[str]:
    """Say by which recipe the runs were trained: one line, with methods if they differ; none if no run has one."""
    names = {
        method: " and ".join(sorted({str(result.settings.get("recipe") or "none") for result in by_seed.values()}))
        for method, by_seed in comparison.group.results.items()
    }
    if set(names.values()) == {"none"}:
        return []
    if len(set(names.values())) == 1:
        return [next(iter(names.values()))]
    return [", ".join(f"{recipe} ({method})" for method, recipe in names.items())]


def folds(comparison: Comparison) -> str:
    """`, n of k folds` for a cross-validation; empty otherwise."""
    found = [result.fold for result in comparison.group.one_per_fold if result.fold is not None]
    return f", {len(found)} of {found[0][1]} folds" if found else ""


def counts(comparison: Comparison) -> str:
    """Sentence on the number of samples per scenario."""
    sizes = {len(ids) for result in comparison.group.one_per_fold for ids in result.ids_by_scenario.values()}
    if len(sizes) == 1:
        return f"{sizes.pop()} samples in every scenario."
    return f"A scenario is scored on the samples that have its modalities: {min(sizes)} to {max(sizes)}."


def differing(comparison: Comparison) -> list[str]:
    """Settings other than those of methods in which runs differ: five at most, and how many more there are."""
    settings = [result.settings for result in comparison.group.all_results]
    names = dict.fromkeys(name for each in settings for name in each)
    told = " ".join(comparison.methods)
    names_apart = [
        name
        for name in names
        if name not in BOOKKEEPING_SETTINGS
        and not name.startswith("method.")
        and f" {name}=" not in told
        and varies(name, settings)
    ]
    found = []
    for name in names_apart:
        values = {
            method: " and ".join(sorted({str(result.settings.get(name)) for result in by_seed.values()}))
            for method, by_seed in comparison.group.results.items()
        }
        found.append(f"{name} " + ", ".join(f"{value} ({method})" for method, value in values.items()))
    return [*found[:5], f"and {len(found) - 5} more"] if len(found) > 5 else found


def tested(comparison: Comparison, reference: str, grouped: bool) -> list[str]:
    """Notes on the tests behind the verdicts."""
    unit = "groups" if grouped else "samples"
    several = any(len(by_seed) > 1 for by_seed in comparison.group.results.values())
    by_sample = all(comparison.scores_by_sample(result) is not None for result in comparison.group.all_results)
    first = (
        f"Over samples: paired bootstrap over {unit}, {DRAWS:,} draws, of the mean over the seeds; "
        f"p: Wilcoxon's signed rank over {unit}, corrected by Holm: the scenarios, the numbers missing and the means "
        "each among themselves, over all methods."
        if by_sample
        else "A sample alone has no such metric: p is that of the t test over seeds, corrected by Holm."
    )
    second = (
        "Over seeds: paired by seed, Student's t. A difference is claimed where every interval leaves out 0 and p is "
        "below .05."
        if several
        else "One seed each: nothing is known of other seeds. A difference is claimed where the interval leaves out 0 "
        "and p is below .05."
    )
    return [f"Reference: {reference}. {first}", second]
