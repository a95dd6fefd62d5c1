"""Figures of training from the logs of runs: conflicts between cases, their coefficients, learning of modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anysubset.report import figures
from anysubset.report.diagnostics import (
    History,
    conflicting,
    learned,
    learning_window,
    mean,
    mean_cosines,
    read_history,
    read_losses,
)
from anysubset.scenarios import Scenario

STILL = 1e-9  # Coefficients closer to 1 than this were not changed by decoupling.


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
    """Figures of every method that decouples, one figure of all their conflicts, and one of learning by modality.

    Args:
        folders: by method, the seed and the folder of the run that is shown.
        modalities: in the order of the task.
        name: prefix of all ids in the page.
    """
    histories = {
        method: history for method, (_, path) in folders.items() if (history := read_history(path)) is not None
    }
    histories = {method: history for method, history in histories.items() if len(history.step)}
    found = [
        of_method(method, folders[method][0], history, modalities, f"{name}-{place}")
        for place, (method, history) in enumerate(histories.items())
    ]
    share = None
    if histories:
        share = Drawn(
            figures.conflict_over_steps(histories, list(folders), f"{name}-conflict"),
            figures.keys(list(histories), list(folders)),
        )
    # Learning is shown for a method that decouples, or else for the first that trains single modalities.
    return found, share, speed({**{each: folders[each] for each in histories}, **folders}, f"{name}-learned")


def of_method(method: str, seed: int, history: History, modalities: Scenario, name: str) -> Dynamics:
    """Figures from the log of one method."""
    angles = figures.before_and_after(history, f"{name}-angles")
    sides = (figures.Key("var(--muted)", "4 2", "before"), figures.Key("var(--accent)", "none", "after"))
    matrix = mean_cosines(history)
    first, second = np.triu_indices(len(matrix), 1)
    known = [(float(matrix[i, j]), i, j) for i, j in zip(first, second, strict=True) if np.isfinite(matrix[i, j])]
    worst = ""
    if known:
        cosine, i, j = min(known)
        worst = f"{history.cases[i]} and {history.cases[j]} (mean cosine {cosine:+.2f})"
    coefficients = None
    if (np.abs(history.coefficients[np.isfinite(history.coefficients)] - 1) > STILL).any():
        drawn = figures.coefficients_over_steps(history, f"{name}-coefficients")
        coefficients = Drawn(drawn, figures.keys(figures.coefficient_names(history)))
    return Dynamics(
        method=method,
        seed=seed,
        conflict=f"{100 * float(mean(conflicting(history))):.0f} %",
        worst=worst,
        cosines=figures.cosines(history, modalities, f"{name}-cosines"),
        angles=None if angles is None else Drawn(angles, sides),
        coefficients=coefficients,
    )


def speed(folders: Mapping[str, tuple[int, Path]], name: str) -> Drawn | None:
    """Relative decrease of the loss of each single modality, in the first run that trains single modalities."""
    for method, (seed, path) in folders.items():
        losses = read_losses(path)
        if not len(losses.step):
            continue
        by_modality = learned(losses, learning_window(losses))
        found = {each: values for each, values in by_modality.items() if np.isfinite(values).sum() > 1}
        if len(found) > 1:
            picture = figures.learning({each: list(values) for each, values in found.items()}, list(losses.step), name)
            return Drawn(picture, figures.keys(list(found)), f"{method}, seed {seed}")
    return None
