"""Table of one run by region: every metric of volumes, averaged over samples and scenarios, and empty references."""

from collections.abc import Sequence

from anysubset.report.grid import Grid
from anysubset.scoring import robustness
from anysubset.scoring.scores import Score, empty_references, means

# Columns: metric -> heading, factor and format. The mean difference of volumes is their bias.
COLUMNS = {
    "dice": ("Dice\n%", 100, ".1f"),
    "dice_nonempty": ("Dice %,\nnon-empty", 100, ".1f"),
    "hd95": ("HD95\nmm", 1, ".1f"),
    "volume_error": ("volume\nerror ml", 1, ".2f"),
    "volume_difference": ("volume\nbias ml", 1, "+.2f"),
}


def region_grid(scores: Sequence[Score], title: str) -> Grid:
    """A row per region: means over the samples and then over the scenarios, and the number of empty references.

    A cell is blank if the region has no score in one of the scenarios.

    Args:
        scores: of one run, with all metrics of `WholeVolume.scores`.
        title: above the table.
    """
    by_metric = {metric: means(scores, metric) for metric in COLUMNS}
    rows = []
    for region, empty in empty_references(scores).items():
        cells = []
        for metric, (_, factor, shown) in COLUMNS.items():
            by_scenario = {scenario: of[region] for scenario, of in by_metric[metric].items() if region in of}
            mean = robustness.mean(by_scenario, by_metric["volume_error"])
            cells.append("" if mean is None else format(factor * mean, shown))
        rows.append([region, *cells, str(empty)])
    return Grid(title, ["region", *(heading for heading, *_ in COLUMNS.values()), "empty\nreferences"], rows)
