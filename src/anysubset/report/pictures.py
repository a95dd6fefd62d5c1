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
from anysubset.scoring import robustness
from anysubset.scoring.scores import shown

TRUTH, PREDICTION = "#ffd84d", "#35d0ff"  # Visible on the black background of a scan.
PIXELS = 240  # Width of a picture.
MAX_METHODS = 5  # So many methods have pictures, to bound the size of the page.


@dataclass(frozen=True)
class Cut:
    """A slice of one patient in one scenario.

    shown: the modality of the image. image: (x, y). truth, prediction: (regions, x, y) bool, outer regions first.
    """

    shown: str
    image: NDArray[np.floating]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]


@dataclass(frozen=True)
class Selection:
    """What is shown. patients: (reason, id). scenarios: (reason, scenario). methods: labels in the tables."""

    patients: Sequence[tuple[str, str]]
    scenarios: Sequence[tuple[str, Scenario]]
    methods: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """A slice as PNG. data: its data URI. label: alternative text. caption: text below it."""

    data: str
    label: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of a data set. patients: (title, for each method a picture per scenario). note: what is left out."""

    patients: Sequence[tuple[str, Sequence[tuple[str, Sequence[Picture]]]]]
    note: str


def select(comparison: Comparison) -> Selection | None:
    """Select the best, the median and the worst complete patient by mean score.

    Each is shown with all modalities, in the worst scenario with one missing modality, and with the worst single
    modality. None for metrics that are defined only for a set, and if no patient is complete.
    """
    names = comparison.modalities
    by_patient: dict[str, list[float]] = {}
    complete: set[str] | None = None
    for result in comparison.group.all_results:
        by_scenario = comparison.scores_by_sample(result)
        if by_scenario is None or names not in by_scenario:
            return None
        complete = set(by_scenario[names]) if complete is None else complete & set(by_scenario[names])
        for scores in by_scenario.values():
            for patient, score in scores.items():
                by_patient.setdefault(patient, []).append(score)
    ranked = sorted(
        complete or (), key=lambda patient: (fmean(by_patient[patient]), patient), reverse=comparison.higher_is_better
    )
    if not ranked:
        return None
    patients = {ranked[0]: "best", ranked[len(ranked) // 2]: "median", ranked[-1]: "worst"}
    means = {
        scenario: fmean(fmean(comparison.by_seed(method, [scenario]).values()) for method in comparison.methods)
        for scenario in comparison.group.first.scenarios
        if all(comparison.by_seed(method, [scenario]) for method in comparison.methods)
    }
    scenarios = {names: "complete"}
    for size, reason in ((len(names) - 1, "worst with one missing"), (1, "worst single modality")):
        of_size = {scenario: mean for scenario, mean in means.items() if len(scenario) == size}
        if of_size:
            scenario, _ = robustness.worst(of_size, comparison.higher_is_better)
            scenarios.setdefault(scenario, reason)
    return Selection(
        [(reason, patient) for patient, reason in patients.items()],
        [(reason, scenario) for scenario, reason in scenarios.items()],
        comparison.methods[:MAX_METHODS],
    )


def gallery(comparison: Comparison, selection: Selection, cuts: Mapping[tuple[str, str, Scenario], Cut]) -> Gallery:
    """Pictures of the selected slices. cuts: slices by method, patient and scenario."""
    patients = []
    for patient_reason, patient in selection.patients:
        rows = []
        for method in selection.methods:
            result = next(iter(comparison.group.results[method].values()))
            scores = comparison.scores_by_sample(result) or {}
            pictures = []
            for reason, scenario in selection.scenarios:
                cut = cuts[method, patient, scenario]
                score = shown(comparison.metric, scores[scenario][patient])
                pictures.append(
                    Picture(
                        data=as_uri(cut),
                        label=f"{patient}, {method} from {scenario_name(scenario)}: slice of {cut.shown} with contours",
                        caption=f"{reason}: {scenario_name(scenario)}; {score}; image: {cut.shown}",
                    )
                )
            rows.append((method, pictures))
        patients.append((f"{patient_reason}: {patient}", rows))
    few = len(selection.methods) < len(comparison.methods)
    return Gallery(patients, f"Only the first {MAX_METHODS} methods are shown." if few else "")


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
            for index, region in enumerate(regions):
                if region.any() and not region.all():  # Else there is no contour to draw.
                    width = 0.9 if index == 0 else 0.55
                    axes.contour(region.T, levels=[0.5], colors=colour, linewidths=width)
        axes.set_axis_off()
        file = io.BytesIO()
        figure.savefig(file, format="png", facecolor="black")
    # A palette reduces the size of the file to a third.
    quantized = Image.open(file).convert("RGB").quantize(palette=palette(), dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    quantized.save(smaller, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(smaller.getvalue()).decode()


def palette() -> Image.Image:
    """Palette of greys, and of both contour colours at several opacities over greys."""
    greys = np.linspace(0, 255, 96)
    colours = [[grey] * 3 for grey in greys.tolist()]
    for name in (TRUTH, PREDICTION):
        contour = [int(name[start : start + 2], 16) for start in (1, 3, 5)]
        for opacity in (0.25, 0.45, 0.65, 0.85):
            for grey in greys[::5].tolist():
                colours.append([opacity * channel + (1 - opacity) * grey for channel in contour])
        colours.append([float(channel) for channel in contour])
    image = Image.new("P", (1, 1))
    image.putpalette([round(channel) for colour in colours[:256] for channel in colour])
    return image
