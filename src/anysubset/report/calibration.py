"""The table of the page on calibration: how good predicted probabilities are, with and without the temperatures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from anysubset.report import figures
from anysubset.report.comparison import Comparison
from anysubset.report.dynamics import Drawn
from anysubset.report.results import Result
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.calibration import UNCALIBRATED
from anysubset.scoring.scores import ALL

# Columns, in this order. Those that end with BEFORE are without the temperatures that validation fitted.
BEFORE = " before"
COLUMNS = (
    "error",
    "confidence",
    "accuracy",
    "NLL",
    "Brier",
    *(f"{name}{BEFORE}" for name in ("error", "NLL", "Brier")),
)
PER_CENT = ("error", "confidence", "accuracy", f"error{BEFORE}")

# By column and scenario.
Measured = Mapping[str, Mapping[Scenario, float]]


@dataclass(frozen=True)
class CalibrationTable:
    """Calibration by scenario.

    unit: what a prediction is made for, such as `samples`. columns: headings, the same for every method.
    rows: scenario, and for each method its cells, blank where unknown. figure: reliability diagram, or None.
    """

    unit: str
    methods: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sequence[str]]]]
    figure: Drawn | None


def calibration_table(comparison: Comparison, name: str) -> CalibrationTable | None:
    """Calibration of the methods whose probabilities were recorded; None if there are none.

    name: prefix of the ids in the page.
    """
    of_classes = table_of(comparison, "samples", of_samples, reliability(comparison, name))
    return of_classes or table_of(
        comparison, "voxels in the box around the head", lambda result: of_voxels(result, comparison.region), None
    )


def table_of(
    comparison: Comparison, unit: str, measure: Callable[[Result], Measured], figure: Drawn | None
) -> CalibrationTable | None:
    """Means over the seeds of what is measured of a run; None if no method has it in all seeds."""
    measured = {
        method: [measure(result) for result in by_seed.values()] for method, by_seed in comparison.group.results.items()
    }
    measured = {method: seeds for method, seeds in measured.items() if all(seed["error"] for seed in seeds)}
    if not measured:
        return None
    columns = [name for name in COLUMNS if any(seed.get(name) for seeds in measured.values() for seed in seeds)]
    rows = [
        (scenario_name(scenario), [[cell(seeds, name, scenario) for name in columns] for seeds in measured.values()])
        for scenario in comparison.group.first.scenarios
    ]
    return CalibrationTable(unit, list(measured), columns, rows, figure)


def cell(seeds: Sequence[Measured], column: str, scenario: Scenario) -> str:
    """Mean over the seeds, in per cent for `PER_CENT`; blank if a seed has no number."""
    numbers = [seed[column][scenario] for seed in seeds if scenario in seed.get(column, {})]
    if len(numbers) < len(seeds):
        return ""
    return f"{100 * fmean(numbers):.1f}" if column in PER_CENT else f"{fmean(numbers):.3f}"


def of_samples(result: Result) -> Measured:
    """Calibration of predicted classes."""
    after = result.calibrations()
    before = result.calibrations(UNCALIBRATED)
    return {
        "error": {scenario: one.error for scenario, one in after.items()},
        "confidence": {scenario: one.confidence for scenario, one in after.items()},
        "accuracy": {scenario: one.accuracy for scenario, one in after.items()},
        "NLL": sample_means(result, "loss", ALL),
        "Brier": sample_means(result, "brier", ALL),
        f"error{BEFORE}": {scenario: one.error for scenario, one in before.items()},
        f"NLL{BEFORE}": sample_means(result, f"loss{UNCALIBRATED}", ALL),
        f"Brier{BEFORE}": sample_means(result, f"brier{UNCALIBRATED}", ALL),
    }


def of_voxels(result: Result, region: str | None) -> Measured:
    """Calibration of voxels, the mean over patients. region: None for the mean over all regions."""
    return {
        f"{column}{end}": sample_means(result, f"{metric}{suffix}", region)
        for column, metric in (("error", "ece"), ("NLL", "nll"), ("Brier", "brier"))
        for end, suffix in (("", ""), (BEFORE, UNCALIBRATED))
    }


def sample_means(result: Result, metric: str, region: str | None) -> dict[Scenario, float]:
    """Mean over the samples by scenario; empty if the metric is not on record."""
    by_sample = result.scores_by_sample(metric, region) or {}
    return {scenario: fmean(values.values()) for scenario, values in by_sample.items()}


def reliability(comparison: Comparison, name: str) -> Drawn | None:
    """Reliability diagram of classes on complete input, of the first seed of each method; None without any."""
    bins = {}
    for method, by_seed in comparison.group.results.items():
        on_complete_input = next(iter(by_seed.values())).calibrations().get(comparison.modalities)
        if on_complete_input is not None:
            bins[method] = on_complete_input.bins
    if not bins:
        return None
    picture = figures.reliability(bins, comparison.methods, f"{name}-reliability")
    return Drawn(picture, figures.keys(list(bins), comparison.methods))
