"""Slices of volumes with the contours of prediction and ground truth, as PNGs inside the page."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from anysubset.report.comparison import Comparison
from anysubset.report.svg import drawing
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import shown

TRUTH, PREDICTION = "#ffd84d", "#35d0ff"  # Visible on the black background of a scan.
PIXELS = 240
MOST = 5  # Methods with pictures, to bound the size of the page.


@dataclass(frozen=True)
class Cut:
    """A slice of one patient in one scenario.

    shown: the modality that the image is of. image: (x, y). truth, prediction: (regions, x, y) bool.
    """

    shown: str
    image: NDArray[np.floating]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]


@dataclass(frozen=True)
class Wanted:
    """patients: (reason, id). scenarios: (reason, scenario). methods: labels in the tables."""

    patients: Sequence[tuple[str, str]]
    scenarios: Sequence[tuple[str, Scenario]]
    methods: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """data: the PNG as a data URI. label: alternative text. caption: text below it."""

    data: str
    label: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """patients: (title, for each method a picture per scenario). note: what is left out, or ""."""

    patients: Sequence[tuple[str, Sequence[tuple[str, Sequence[Picture]]]]]
    note: str


def wanted(comparison: Comparison) -> Wanted | None:
    """Select what is shown: the best, the median and the worst complete patient by mean score.

    Each with all modalities, in the worst scenario with one missing modality, and in the worst single modality. None
    for metrics that only a set has, and if no patient is complete.
    """
    names = comparison.modalities
    by_patient: dict[str, list[float]] = {}
    complete: set[str] | None = None
    for result in comparison.group.all_results:
        table = comparison.scores_by_sample(result)
        if table is None or names not in table:
            return None
        complete = set(table[names]) if complete is None else complete & set(table[names])
        for values in table.values():
            for sample, value in values.items():
                by_patient.setdefault(sample, []).append(value)
    ranked = sorted(complete or (), key=lambda each: (fmean(by_patient[each]), each), reverse=comparison.higher)
    if not ranked:
        return None
    patients = {ranked[0]: "best", ranked[len(ranked) // 2]: "median", ranked[-1]: "worst"}
    means = {
        scenario: fmean(fmean(comparison.by_seed(method, [scenario]).values()) for method in comparison.methods)
        for scenario in comparison.group.first.scenarios
        if all(comparison.by_seed(method, [scenario]) for method in comparison.methods)
    }
    found = {names: "complete"}
    for size, words in ((len(names) - 1, "one missing"), (1, "one alone")):
        some = [scenario for scenario in means if len(scenario) == size]
        if some:
            least = (min if comparison.higher else max)(some, key=lambda each: means[each])
            found.setdefault(least, words)
    return Wanted(
        [(why, patient) for patient, why in patients.items()],
        [(why, scenario) for scenario, why in found.items()],
        comparison.methods[:MOST],
    )


def gallery(comparison: Comparison, asked: Wanted, cuts: Mapping[tuple[str, str, Scenario], Cut]) -> Gallery:
    """Pictures from the slices by method, patient and scenario."""
    patients = []
    for why, patient in asked.patients:
        rows = []
        for method in asked.methods:
            result = next(iter(comparison.group.results[method].values()))
            table = comparison.scores_by_sample(result) or {}
            pictures = []
            for reason, scenario in asked.scenarios:
                cut = cuts[method, patient, scenario]
                score = shown(comparison.metric, table[scenario][patient])
                pictures.append(
                    Picture(
                        data=as_uri(cut),
                        label=f"{patient}, {method} from {scenario_name(scenario)}: slice of {cut.shown} with contours",
                        caption=f"{reason}: {scenario_name(scenario)}; {score}; shown: {cut.shown}",
                    )
                )
            rows.append((method, pictures))
        patients.append((f"{why}: {patient}", rows))
    few = len(asked.methods) < len(comparison.methods)
    return Gallery(patients, f"The first {MOST} methods." if few else "")


def as_uri(cut: Cut) -> str:
    """A slice as PNG data URI: outer regions in thick lines, inner ones in thin lines."""
    inside = cut.image[cut.image != 0]  # The background of a prepared volume is exactly 0.
    low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0.0, 1.0)
    image = np.where(cut.image == 0, low, cut.image)
    with drawing():
        height = cut.image.shape[1] / cut.image.shape[0]
        figure = Figure(figsize=(1, height), dpi=PIXELS)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.imshow(image.T, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), origin="lower", aspect="auto")
        for regions, colour in ((cut.truth, TRUTH), (cut.prediction, PREDICTION)):
            for place, region in enumerate(regions):
                if region.any() and not region.all():
                    width = 0.9 if place == 0 else 0.55
                    axes.contour(region.T, levels=[0.5], colors=colour, linewidths=width)
        axes.set_axis_off()
        file = io.BytesIO()
        figure.savefig(file, format="png", facecolor="black")
    small = io.BytesIO()
    # A palette cuts the size to a third.
    painted = Image.open(file).convert("RGB").quantize(palette=palette(), dither=Image.Dither.NONE)
    painted.save(small, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(small.getvalue()).decode()


def palette() -> Image.Image:
    """Palette of greys, and of both contour colours at several opacities over greys."""
    greys = np.linspace(0, 255, 96)
    colours = [[grey] * 3 for grey in greys.tolist()]
    for name in (TRUTH, PREDICTION):
        contour = [int(name[place : place + 2], 16) for place in (1, 3, 5)]
        for opacity in (0.25, 0.45, 0.65, 0.85):
            for grey in greys[::5].tolist():
                colours.append([opacity * each + (1 - opacity) * grey for each in contour])
        colours.append([float(each) for each in contour])
    found = Image.new("P", (1, 1))
    found.putpalette([round(each) for colour in colours[:256] for each in colour])
    return found
