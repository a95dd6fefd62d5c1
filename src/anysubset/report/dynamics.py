"""Figures of training from the logs of runs: conflict between cases, coefficients, learning speed of modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anysubset.report import figures
from anysubset.report.diagnostics import (
    History,
    conflicting,
    learning_window,
    loss_decrease,
    mean,
    mean_cosines,
    read_history,
    read_losses,
)
from anysubset.scenarios import Scenario

TOLERANCE = 1e-9  # Coefficients closer to 1 than this were not changed by decoupling.


@dataclass(frozen=True)
class Drawn:
    """A figure: its `svg` element, the entries of its legend, and its caption."""

    svg: str
    keys: Sequence[figures.Key] = ()
    caption: str = ""


@dataclass(frozen=True)
class Dynamics:
    """Figures of the first seed of a method that decouples.

    conflict: mean share of conflicting pairs, as text. worst: the pair of cases with the most negative mean cosine, as
    text. coefficients: None if all coefficients stayed at 1.
    """

    method: str
    seed: int
    conflict: str
    worst: str
    cosines: Sequence[str]
    angles: Drawn | None
    coefficients: Drawn | None


def dynamics(
    folders: Mapping[str, tuple[int, Path]], modalities: Scenario, name: str
) -> tuple[list[Dynamics], Drawn | None, Drawn | None]:
    """Figures of each method that decouples, a figure of the conflict in all of them, and one of the learning speed.

    Args:
        folders: seed and folder of the run that is shown, by method.
        modalities: in the order of the task.
        name: prefix of all ids in the page.
    """
    histories = {
        method: history for method, (_, path) in folders.items() if (history := read_history(path)) is not None
    }
    histories = {method: history for method, history in histories.items() if len(history.step)}
    by_method = [
        method_dynamics(method, folders[method][0], history, modalities, f"{name}-{index}")
        for index, (method, history) in enumerate(histories.items())
    ]
    conflict = None
    if histories:
        conflict = Drawn(
            figures.conflict_over_steps(histories, list(folders), f"{name}-conflict"),
            figures.keys(list(histories), list(folders)),
        )
    # The learning speed is shown for a method that decouples, or else for the first that trains single modalities.
    decoupling_first = {**{method: folders[method] for method in histories}, **folders}
    return by_method, conflict, learning_figure(decoupling_first, f"{name}-learning")


def method_dynamics(method: str, seed: int, history: History, modalities: Scenario, name: str) -> Dynamics:
    """Figures from the log of one method."""
    angles = figures.before_and_after(history, f"{name}-angles")
    sides = (figures.Key("var(--muted)", "4 2", "before"), figures.Key("var(--accent)", "none", "after"))
    matrix = mean_cosines(history)
    first, second = np.triu_indices(len(matrix), 1)
    measured = [(float(matrix[i, j]), i, j) for i, j in zip(first, second, strict=True) if np.isfinite(matrix[i, j])]
    worst = ""
    if measured:
        cosine, i, j = min(measured)
        worst = f"{history.cases[i]} and {history.cases[j]} (mean cosine {cosine:+.2f})"
    coefficients = None
    if (np.abs(history.coefficients[np.isfinite(history.coefficients)] - 1) > TOLERANCE).any():
        drawn = figures.coefficients_over_steps(history, f"{name}-coefficients")
        coefficients = Drawn(drawn, figures.keys(list(figures.coefficient_lines(history))))
    return Dynamics(
        method=method,
        seed=seed,
        conflict=f"{100 * float(mean(conflicting(history))):.0f} %",
        worst=worst,
        cosines=figures.cosines(history, modalities, f"{name}-cosines"),
        angles=None if angles is None else Drawn(angles, sides),
        coefficients=coefficients,
    )


def learning_figure(folders: Mapping[str, tuple[int, Path]], name: str) -> Drawn | None:
    """Loss decrease of each modality in the first run that trains cases of single modalities; None if none does."""
    for method, (seed, path) in folders.items():
        losses = read_losses(path)
        if not len(losses.step):
            continue
        decreases = {
            modality: list(values)
            for modality, values in loss_decrease(losses, learning_window(losses)).items()
            if np.isfinite(values).sum() > 1  # A line needs two points.
        }
        if len(decreases) > 1:
            picture = figures.learning(decreases, list(losses.step), name)
            return Drawn(picture, figures.keys(list(decreases)), f"{method}, seed {seed}")
    return None
