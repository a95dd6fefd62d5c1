"""The report: one self-contained HTML page without scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import anysubset
from anysubset.report import figures
from anysubset.report.cards import (
    Availability,
    Cost,
    Fact,
    availability,
    commands,
    costs,
    environment,
    protocol_card,
)
from anysubset.report.comparison import Comparison
from anysubset.report.differences import compare
from anysubset.report.dynamics import Drawn, Dynamics, dynamics
from anysubset.report.groups import RunGroup
from anysubset.report.pictures import Gallery
from anysubset.report.results import Result
from anysubset.report.scoreboard import Card, Row, Scoreboard, Worth, scale_of, worth_of
from anysubset.report.side_by_side import reference_of, tested
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import SHARES, heading, number
from anysubset.scoring.statistics import DRAWS
from anysubset.system.run_folder import read_record


@dataclass(frozen=True)
class Calibrated:
    """Table of calibration: a row per scenario with the `columns` of each method, in per cent or "".

    of: what is predicted, as text.
    """

    of: str
    methods: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Sequence[str]]]]
    figure: Drawn | None


@dataclass(frozen=True)
class Chapter:
    """Content of the page on one dataset; the template lays it out."""

    name: str
    title: str
    comparison: Comparison
    reference: str
    spread: str
    cards: Sequence[Card]
    notes: Sequence[str]
    rows: Sequence[Row]
    regions: Sequence[tuple[str, Sequence[Row]]]
    constants: Mapping[str, str]
    curve: Drawn | None
    dynamics: Sequence[Dynamics]
    conflict: Drawn | None
    learned: Drawn | None
    worth: Worth
    shapley: Drawn | None
    availability: Availability
    protocol: Sequence[Fact]
    volumes: bool
    gallery: Gallery | None
    why: str
    calibrated: Calibrated | None
    cost: tuple[Sequence[str], Sequence[Cost]]
    environment: Sequence[Fact]
    commands: Sequence[tuple[str, str, str]]


def page(
    groups: Sequence[RunGroup],
    *,
    metric: str | None = None,
    region: str | None = None,
    reference: str | None = None,
    galleries: Mapping[str, Gallery | str] | None = None,
    draws: int = DRAWS,
) -> str:
    """HTML text of the report.

    Args:
        groups: the runs, by dataset.
        metric: by default the first that was scored of `USUAL` on each dataset.
        region: of the metric, or None for the mean over its regions.
        reference: method that the others are compared with, as in `reference_of`.
        galleries: pictures of volumes by dataset, or the reason why there are none.
        draws: of the bootstrap.

    Raises:
        InputError: if metric, region or reference are unknown, or a run folder is damaged.
    """
    chapters = []
    for place, group in enumerate(groups):
        comparison = Comparison(group, metric or group.first.metrics[0], region)
        gallery = (galleries or {}).get(group.first.dataset, "Not in this page: anysubset report --images draws them.")
        name = f"c{place + 1}" if len(groups) > 1 else "c"
        chapters.append(chapter(comparison, reference_of(group, reference), name, gallery, draws))
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found = templates.get_template("page.html.jinja").render(chapters=chapters, version=anysubset.__version__)
    return "".join(f"{line}\n" for line in found.splitlines() if line.strip())


def chapter(comparison: Comparison, reference: str, name: str, gallery: Gallery | str, draws: int) -> Chapter:
    """Content of the page on one dataset."""
    group = comparison.group
    differences = compare(comparison, reference, draws=draws)
    board = Scoreboard(comparison, reference, differences, draws)
    records = {result.folder: read_record(result.folder) for result in group.all_results}
    folders = {
        method: next((seed, result.folder) for seed, result in found.items()) for method, found in group.results.items()
    }
    found, conflict, learned = dynamics(folders, comparison.modalities, name)
    worth = worth_of(comparison)
    return Chapter(
        name=name,
        title=group.first.dataset,
        comparison=comparison,
        reference=reference,
        spread=board.spread_in_words,
        cards=board.cards(),
        notes=tested(comparison, reference, grouped=False) if differences else [],
        rows=board.rows(),
        regions=by_region(comparison, reference, draws),
        constants={each: number(comparison.metric, value) for each, value in comparison.constants.items()},
        curve=curve(board, name),
        dynamics=found,
        conflict=conflict,
        learned=learned,
        worth=worth,
        shapley=shapley(worth, comparison, name),
        availability=availability(comparison, records),
        protocol=protocol_card(comparison, records),
        volumes="dice" in group.first.metrics,
        gallery=None if isinstance(gallery, str) else gallery,
        why=gallery if isinstance(gallery, str) else "",
        calibrated=calibrated(comparison, name),
        cost=costs(comparison, records),
        environment=environment(records.values()),
        commands=commands(comparison, records),
    )


def by_region(comparison: Comparison, reference: str, draws: int) -> list[tuple[str, list[Row]]]:
    """A map of scores per region if the main map shows their mean; without differences to the reference."""
    regions = comparison.group.first.regions(comparison.metric)
    if comparison.region is not None or len(regions) < 2:
        return []
    found = []
    for region in regions:
        board = Scoreboard(Comparison(comparison.group, comparison.metric, region), reference, {}, draws)
        found.append((region, board.rows()))
    return found


def unit(metric: str) -> str:
    """Label of an axis."""
    return f"{SHARES[metric]}, %" if metric in SHARES else heading(metric)


def curve(board: Scoreboard, name: str) -> Drawn | None:
    """Score against the number missing."""
    curves = board.curves()
    if not curves:
        return None
    methods = board.comparison.methods
    drawn = figures.against_missing(curves, methods, unit(board.comparison.metric), f"{name}-missing")
    return Drawn(drawn, figures.keys(list(curves), methods))


def shapley(worth: Worth, comparison: Comparison, name: str) -> Drawn | None:
    """Bar chart of Shapley values."""
    if not worth.shapley:
        return None
    points = "points of " if scale_of(comparison.metric) == 100 else ""
    label = f"Shapley value, {points}{SHARES.get(comparison.metric, heading(comparison.metric))}"
    drawn = figures.worth(worth.shapley, comparison.methods, label, f"{name}-shapley")
    return Drawn(drawn, figures.keys(list(worth.shapley), comparison.methods))


def calibrated(comparison: Comparison, name: str) -> Calibrated | None:
    """Calibration of the methods whose probabilities were recorded; None if there are none."""
    return calibrated_classes(comparison, name) or calibrated_voxels(comparison)


def calibrated_classes(comparison: Comparison, name: str) -> Calibrated | None:
    """Calibration error, confidence and accuracy of predicted classes."""
    found = {
        method: values
        for method, by_seed in comparison.group.results.items()
        if (values := mean_calibrations(list(by_seed.values())))
    }
    if not found:
        return None
    bins = {}
    for method in found:
        first = next(iter(comparison.group.results[method].values()))
        whole = first.calibrations().get(comparison.modalities)
        if whole is not None:
            bins[method] = whole.bins
    drawn = None
    if bins:
        picture = figures.reliability(bins, comparison.methods, f"{name}-reliability")
        drawn = Drawn(picture, figures.keys(list(bins), comparison.methods))
    return Calibrated("samples", list(found), ["error", "confidence", "accuracy"], in_rows(comparison, found), drawn)


def mean_calibrations(results: Sequence[Result]) -> dict[Scenario, tuple[float, float, float]]:
    """Means over the seeds of error, confidence and accuracy, by scenario; empty if a seed has no probabilities."""
    by_seed = [result.calibrations() for result in results]
    return {
        scenario: (
            fmean(seed[scenario].error for seed in by_seed),
            fmean(seed[scenario].confidence for seed in by_seed),
            fmean(seed[scenario].accuracy for seed in by_seed),
        )
        for scenario in by_seed[0]
        if all(scenario in seed for seed in by_seed)
    }


def calibrated_voxels(comparison: Comparison) -> Calibrated | None:
    """Calibration error of voxels: the mean over patients and seeds."""
    found = {}
    for method, by_seed in comparison.group.results.items():
        if all("ece" in result.metrics for result in by_seed.values()):
            values = [result.scores("ece", comparison.region) for result in by_seed.values()]
            found[method] = {scenario: [fmean(each[scenario] for each in values)] for scenario in values[0]}
    if not found:
        return None
    return Calibrated("voxels of the box around the head", list(found), ["error"], in_rows(comparison, found), None)


def in_rows(
    comparison: Comparison, found: Mapping[str, Mapping[Scenario, Sequence[float]]]
) -> list[tuple[str, list[list[str]]]]:
    """Rows of the table: per scenario, the numbers of each method in per cent."""
    columns = max(len(numbers) for values in found.values() for numbers in values.values())
    return [
        (
            scenario_name(scenario),
            [[f"{100 * each:.1f}" for each in values.get(scenario, [])] or [""] * columns for values in found.values()],
        )
        for scenario in comparison.group.first.scenarios
    ]
