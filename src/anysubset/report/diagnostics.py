"""Conflict between the cases, from what was logged of it: a run's `decoupling.npz` and `metrics.jsonl`.

Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality Robustness": two cases conflict where the cosine
of their gradients, eq. (5), is negative; the weights are those of the sum of the projected gradients, eq. (9) for two
cases. Whatever is given by case stands under its name, whichever cases a step drew and in whichever order. What is not
finite, as after an overflow, counts as not there.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.system.run_folder import RunFolder

Array = NDArray[Any]
WINDOW = 100  # Steps, as in Figure 4 of the paper.


@dataclass(frozen=True, eq=False)
class History:
    """T logged steps of at most k cases, padded with -1 and NaN.

    step: (T,), ascending. cases: the C names. case: (T, k), places in `cases`.
    weights, norms: (T, k). cosines, gramian: (T, k, k), eq. (5) and the inner products.
    copies: (T, k, k), row i the projected gradient of case i in coordinates of the original ones.

    Gramians and copies are all NaN where a file is too old to hold them, copies where the rule gives weights alone.
    """

    step: Array
    cases: tuple[str, ...]
    case: Array
    weights: Array
    norms: Array
    cosines: Array
    gramian: Array
    copies: Array

    def between(self, first: float, last: float) -> "History":
        """The steps after `first`, up to `last`."""
        return self.only((self.step > first) & (self.step <= last))

    def only(self, chosen: Array) -> "History":
        """Some of the steps; chosen: (T,) bool."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "cases"}
        return replace(self, **{name: value[chosen] for name, value in values.items()})


def history_of(arrays: Mapping[str, Array]) -> History:
    """From the arrays of `decoupling.npz`, of this version or older ones."""
    square = np.full(arrays["cosines"].shape, np.nan)
    given = {each.name: arrays.get(each.name, square) for each in fields(History) if each.name != "cases"}
    return History(cases=tuple(arrays["cases"].tolist()), **given)


def read_history(run: Path) -> History | None:
    """What a run logged of decoupling; None where nothing was decoupled.

    Raises:
        InputError: if the file is damaged.
    """
    path = RunFolder(run).decoupling
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as stored:  # Else a damaged file stays open.
            return history_of({name: stored[name] for name in stored.files})
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"{path} is damaged: it is no log of decoupling.") from error


# ---------------------------------------------------------------------------------------------------- by case


def by_case(history: History, values: Array) -> Array:
    """(T, k) of the cases of each step -> (T, C) under their names; NaN where a case was not in the step."""
    found = np.full((len(history.step), len(history.cases)), np.nan)
    rows, places = np.nonzero(history.case >= 0)
    found[rows, history.case[rows, places]] = values[rows, places]
    return found


def mean(values: Array, axis: int = 0) -> Array:
    """Of what is finite; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    return np.where(count > 0, np.where(there, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def smoothed(step: Array, values: Array, window: int = WINDOW) -> Array:
    """(T, ...): at each logged step the mean over the last `window` steps, as in Figure 4, of what is finite."""
    starts = np.searchsorted(step, step - window, side="right")
    rows = [mean(values[start : row + 1]) for row, start in enumerate(starts.tolist())]
    return np.array(rows).reshape(values.shape)


def mean_cosines(history: History) -> Array:
    """(C, C): eq. (5), averaged over the steps in which both cases were; NaN where there is none."""
    return over_steps(history, history.cosines)


def conflicts(history: History) -> Array:
    """(C, C): of the steps in which both cases were, the share in which they conflict."""
    return over_steps(history, np.where(np.isfinite(history.cosines), history.cosines < 0, np.nan))


def over_steps(history: History, values: Array) -> Array:
    """(T, k, k) of pairs of cases -> (C, C), the mean over steps."""
    count = len(history.cases)
    total, times = np.zeros((count, count)), np.zeros((count, count))
    for places, square in zip(history.case, values, strict=True):
        there = places >= 0
        at = np.ix_(places[there], places[there])
        seen = square[np.ix_(there, there)]
        total[at] += np.where(np.isfinite(seen), seen, 0.0)
        times[at] += np.isfinite(seen)
    return np.where(times > 0, total / np.maximum(times, 1), np.nan)


# -------------------------------------------------------------------------------------------------- pairs of cases


def conflicting(history: History) -> Array:
    """(T,): the share of the pairs of cases of each step that conflict; NaN where there is no pair."""
    return mean(pairs(np.where(np.isfinite(history.cosines), history.cosines < 0, np.nan)), axis=1)


def pairs(values: Array) -> Array:
    """(T, k, k) symmetric -> (T, k (k - 1) / 2), each pair once."""
    first, second = np.triu_indices(values.shape[-1], 1)
    return np.asarray(values[:, first, second])


def angles(history: History) -> tuple[Array, Array]:
    """In degrees, between each two gradients of each step, before decoupling and after it, as in Figure 3.

    Both are (n,), of the same pairs: those in which neither gradient is zero, before or after.

    >>> arrays = {"step": np.array([1]), "cases": np.array(["a", "b"]), "case": np.array([[0, 1]])}
    >>> arrays |= {"gramian": np.array([[[1.0, -1.0], [-1.0, 2.0]]])}  # rows (1, 0) and (-1, 1)
    >>> arrays |= {"copies": np.array([[[1.0, 0.5], [1.0, 1.0]]])}  # rows (.5, .5) and (0, 1)
    >>> arrays |= {"cosines": np.zeros((1, 2, 2)), "weights": np.zeros((1, 2)), "norms": np.zeros((1, 2))}
    >>> before, after = angles(history_of(arrays))
    >>> before.round(9).tolist(), after.round(9).tolist()
    ([135.0], [45.0])
    """
    whole = np.where(np.isfinite(history.gramian), history.gramian, 0.0)
    copies = np.where(np.isfinite(history.copies), history.copies, 0.0)
    before, after = pairs(degrees(whole, np.abs(whole))), pairs(degrees(*projected(copies, whole)))
    known = np.isfinite(before) & np.isfinite(after)
    return before[known], after[known]


def projected(copies: Array, products: Array) -> tuple[Array, Array]:
    """The inner products W G W^T of the copies, and how large what cancels out in them is; (T, k, k) each."""
    sizes = np.abs(copies) @ np.abs(products) @ np.abs(copies).swapaxes(1, 2)
    return copies @ products @ copies.swapaxes(1, 2), sizes


def degrees(products: Array, sizes: Array) -> Array:
    """(T, k, k) angles from inner products; NaN for a vector of which rounding noise is all that is left."""
    squares = np.diagonal(products, axis1=1, axis2=2)
    left = squares > 1e-12 * np.diagonal(sizes, axis1=1, axis2=2)
    lengths = np.where(left, np.sqrt(np.where(left, squares, 1.0)), np.nan)
    cosines = products / lengths[:, :, None] / lengths[:, None, :]
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))


def angle_counts(found: Array, width: int = 10) -> Array:
    """How many angles lie in 0 to `width` degrees, the next `width`, .., up to 180."""
    return np.histogram(found, bins=np.arange(0, 180 + width, width))[0]


# ------------------------------------------------------------------------------------------------- learning speed


@dataclass(frozen=True, eq=False)
class Losses:
    """step: (T,), ascending. values: by case, (T,) the mean loss over its eligible samples; NaN where it had none."""

    step: Array
    values: Mapping[str, Array]


def read_losses(run: Path) -> Losses:
    """From a run's `metrics.jsonl`; a last line that a kill cut off is left out."""
    path = RunFolder(run).losses
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if "losses" in entry:
            entries.append((entry["step"], {**entry["losses"], **entry.get("other_losses", {})}))
    names = dict.fromkeys(name for _, losses in entries for name in losses)
    values = {name: np.array([losses.get(name, np.nan) for _, losses in entries], np.float64) for name in names}
    return Losses(np.array([step for step, _ in entries], np.int64), values)


def learning_window(losses: Losses) -> int:
    """A tenth of training, so that short runs are not one long average; at least up to the first logged step."""
    return max(int(losses.step[-1]) // 10, int(losses.step[0]))


def learned(losses: Losses, window: int = WINDOW) -> dict[str, Array]:
    """By modality, (T,): how much of its first loss it has lost, from the case in which it is alone.

    1 - l(t) / l(0), where l(t) is the mean over the last `window` steps, and l(0) that over the first `window`.
    """
    found = {}
    for name, values in losses.values.items():
        if "+" not in name:
            first = mean(values[losses.step <= window])
            found[name] = 1 - smoothed(losses.step, values, window) / (first if first > 0 else math.nan)
    return found


def learning_speed(losses: Losses) -> dict[str, list[float]]:
    """By modality: how much of its first loss it lost by the end of each third of training.

    As `learned`, over windows of `learning_window`. What a third adds is the speed in it.
    """
    if not len(losses.step):
        return {}
    last = int(losses.step[-1])
    ends = np.searchsorted(losses.step, [last / 3, 2 * last / 3, last], side="right") - 1
    found = learned(losses, learning_window(losses))
    return {name: [float(values[end]) if end >= 0 else math.nan for end in ends] for name, values in found.items()}


# ------------------------------------------------------------------------------------------------------ in a table


def summary(history: History) -> dict[str, Any]:
    """Of some steps, what JSON can hold; None where there is nothing.

    conflicting: the share of conflicting pairs, the mean over steps. norms, weights: by case, means over the steps that
    had it. cosines: a matrix in the order of `cases`. pairs: each pair, the most negative mean cosine first, with the
    share of steps in which it conflicts. angles: counts by 10 degrees, before and after.
    """
    cosines, shares = mean_cosines(history), conflicts(history)
    first, second = np.triu_indices(len(history.cases), 1)
    known = [(i, j) for i, j in zip(first, second, strict=True) if np.isfinite(cosines[i, j])]
    known.sort(key=lambda pair: cosines[pair])
    before, after = angles(history)
    found = {
        "steps": len(history.step),
        "conflicting": float(mean(conflicting(history))),
        "norms": named(history, history.norms),
        "weights": named(history, history.weights),
        "cases": list(history.cases),
        "cosines": cosines.tolist(),
        "pairs": [
            {
                "cases": [history.cases[i], history.cases[j]],
                "cosine": float(cosines[i, j]),
                "conflicting": float(shares[i, j]),
            }
            for i, j in known
        ],
        "angles": {"before": angle_counts(before).tolist(), "after": angle_counts(after).tolist()},
    }
    blank: dict[str, Any] = without_nan(found)
    return blank


def named(history: History, values: Array) -> dict[str, float]:
    """(T, k) -> by case, the mean over the steps that had it."""
    return dict(zip(history.cases, mean(by_case(history, values)).tolist(), strict=True))


def training_summary(history: History) -> dict[str, Any]:
    """`summary` of all logged steps; `thirds` says what each third of training saw, with the step that ends it."""
    last = int(history.step[-1])
    ends = [last / 3, 2 * last / 3, last]
    parts = [history.between(first, end) for first, end in zip([0.0, *ends], ends, strict=False)]
    thirds = [
        {
            "until": math.floor(end),
            "conflicting": float(mean(conflicting(part))),
            "weights": named(part, part.weights),
        }
        for part, end in zip(parts, ends, strict=True)
    ]
    return {**summary(history), "thirds": without_nan(thirds)}


def without_nan(found: Any) -> Any:
    """With None in place of what is no number, which JSON cannot hold."""
    if isinstance(found, dict):
        return {name: without_nan(value) for name, value in found.items()}
    if isinstance(found, list):
        return [without_nan(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def diagnosis(run: Path, now: History) -> dict[str, Any]:
    """What `anysubset diagnose` says: of batches that were looked at just now, and of the training before.

    now: a step a batch. The keys are `now`, `training` (None where nothing was decoupled) and `learning`.
    """
    history = read_history(run)
    return {
        "now": summary(now),
        "training": training_summary(history) if history is not None else None,
        "learning": without_nan(learning_speed(read_losses(run))),
    }
