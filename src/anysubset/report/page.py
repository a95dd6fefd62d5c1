"""The report: one self-contained HTML page without scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import anysubset
from anysubset.report import figures
from anysubset.report.calibration import CalibrationTable, calibration_table
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
from anysubset.report.contributions import Contributions, contributions_of
from anysubset.report.differences import compare
from anysubset.report.dynamics import Drawn, Dynamics, dynamics
from anysubset.report.formatting import printed_scale
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup
from anysubset.report.pictures import Gallery
from anysubset.report.protocol import statistics_notes
from anysubset.report.scoreboard import Card, Row, Scoreboard
from anysubset.report.side_by_side import metric_summary, reference_of
from anysubset.scoring.scores import SHARES, heading, number
from anysubset.scoring.statistics import DRAWS
from anysubset.system.run_folder import read_record

NO_IMAGES = "Slices are drawn by: anysubset report --images"


@dataclass(frozen=True)
class Chapter:
    """Content of the page on one data set, in the order of its sections.

    name: prefix of the ids in the page. spread: what the spread beside the scores is. volumes: segmentation.
    why_no_gallery: text if there are no pictures. conflict, learning: figures over the training steps.
    """

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
    metrics: Grid | None
    curve: Drawn | None
    dynamics: Sequence[Dynamics]
    conflict: Drawn | None
    learning: Drawn | None
    contributions: Contributions
    shapley: Drawn | None
    availability: Availability
    protocol: Sequence[Fact]
    volumes: bool
    gallery: Gallery | None
    why_no_gallery: str
    calibration: CalibrationTable | None
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
        groups: the runs, one group per data set.
        metric: by default the first that was scored of `USUAL` on each data set.
        region: of the metric, or None for the mean over its regions.
        reference: method that the others are compared with, as in `reference_of`.
        galleries: pictures of volumes by data set, or the reason why there are none.
        draws: number of bootstrap draws.

    Raises:
        InputError: if metric, region or reference are unknown, or a run folder is damaged.
    """
    chapters = []
    for index, group in enumerate(groups):
        comparison = Comparison(group, metric or group.first.default_metric, region)
        gallery = (galleries or {}).get(group.first.dataset, NO_IMAGES)
        name = f"c{index + 1}" if len(groups) > 1 else "c"
        chapters.append(chapter(comparison, reference_of(group, reference), name, gallery, draws))
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    text = templates.get_template("page.html.jinja").render(chapters=chapters, version=anysubset.__version__)
    return "".join(f"{line}\n" for line in text.splitlines() if line.strip())


def chapter(comparison: Comparison, reference: str, name: str, gallery: Gallery | str, draws: int) -> Chapter:
    """Content of the page on one data set.

    Args:
        comparison: scores of its runs.
        reference: the method that the others are compared with.
        name: prefix of the ids in the page.
        gallery: slices of patients, or a sentence that says why there are none.
        draws: number of bootstrap draws.
    """
    group = comparison.group
    differences = compare(comparison, reference, draws=draws)
    board = Scoreboard(comparison, reference, differences, draws)
    records = {result.folder: read_record(result.folder) for result in group.all_results}
    first_runs = {
        method: next((seed, result.folder) for seed, result in by_seed.items())
        for method, by_seed in group.results.items()
    }
    by_method, conflict, learning = dynamics(first_runs, comparison.modalities, name)
    contributions = contributions_of(comparison)
    return Chapter(
        name=name,
        title=group.first.dataset,
        comparison=comparison,
        reference=reference,
        spread=board.spread_in_words,
        cards=board.cards(),
        notes=statistics_notes(comparison, reference, grouped=False) if differences else [],
        rows=board.rows(),
        regions=by_region(comparison, reference, draws),
        constants={source: number(comparison.metric, value) for source, value in comparison.constants.items()},
        metrics=metric_summary(comparison) if len(group.first.headline) > 1 else None,
        curve=curve(board, name),
        dynamics=by_method,
        conflict=conflict,
        learning=learning,
        contributions=contributions,
        shapley=shapley(contributions, comparison, name),
        availability=availability(comparison, records),
        protocol=protocol_card(comparison, records),
        volumes="dice" in group.first.metrics,
        gallery=None if isinstance(gallery, str) else gallery,
        why_no_gallery=gallery if isinstance(gallery, str) else "",
        calibration=calibration_table(comparison, name),
        cost=costs(comparison, records),
        environment=environment(records.values()),
        commands=commands(comparison, records),
    )


def by_region(comparison: Comparison, reference: str, draws: int) -> list[tuple[str, list[Row]]]:
    """A map of scores per region if the main map shows their mean; it marks no differences to the reference."""
    regions = comparison.group.first.regions(comparison.metric)
    if comparison.region is not None or len(regions) < 2:
        return []
    maps = []
    for region in regions:
        board = Scoreboard(Comparison(comparison.group, comparison.metric, region), reference, {}, draws)
        maps.append((region, board.rows()))
    return maps


def axis_label(metric: str) -> str:
    """Label of an axis that shows a metric, with its unit."""
    return f"{SHARES[metric]}, %" if metric in SHARES else heading(metric)


def curve(board: Scoreboard, name: str) -> Drawn | None:
    """Figure of the score against the number of missing modalities; None without scores."""
    curves = board.curves()
    if not curves:
        return None
    methods = board.comparison.methods
    drawn = figures.against_missing(curves, methods, axis_label(board.comparison.metric), f"{name}-missing")
    return Drawn(drawn, figures.keys(list(curves), methods))


def shapley(contributions: Contributions, comparison: Comparison, name: str) -> Drawn | None:
    """Bar chart of Shapley values; None if there are none."""
    values = contributions.shapley
    if not values:
        return None
    unit = "percentage points of " if printed_scale(comparison.metric) == 100 else ""
    label = f"Shapley value, {unit}{SHARES.get(comparison.metric, heading(comparison.metric))}"
    drawn = figures.shapley_bars(values, comparison.methods, label, f"{name}-shapley")
    return Drawn(drawn, figures.keys(list(values), comparison.methods))
