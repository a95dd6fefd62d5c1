"""Conflicts between the gradients of cases, from a run's logs `decoupling.npz` and `metrics.jsonl`.

Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality Robustness": two cases conflict where the cosine
of their gradients, eq. (5), is negative; the coefficients are those of the sum of the projected gradients, eq. (9) for
two cases. Values by case are matched by the name of the case, whichever cases a step drew and in any order. Values that
are not finite, as after an overflow, are ignored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.system.run_files import read_decoupling, read_log
from anysubset.system.run_folder import RunFolder

Array = NDArray[Any]
WINDOW = 100  # Steps of the running mean, as in Figure 4 of the paper.


@dataclass(frozen=True, eq=False)
class History:
    """T logged steps of at most k cases, padded with -1 and NaN.

    step: (T,), ascending. cases: the C names. case: (T, k), indices into `cases`.
    coefficients, norms: (T, k). cosines, gramian: (T, k, k), eq. (5) and the inner products.
    copies: (T, k, k), row i the projected gradient of case i in coordinates of the original ones.

    Gramians and copies are NaN in files of older versions, copies also if the rule gives coefficients only.
    """

    step: Array
    cases: tuple[str, ...]
    case: Array
    coefficients: Array
    norms: Array
    cosines: Array
    gramian: Array
    copies: Array

    def between(self, first: float, last: float) -> "History":
        """The steps with first < step <= last."""
        return self.only((self.step > first) & (self.step <= last))

    def only(self, chosen: Array) -> "History":
        """The steps selected by a (T,) bool mask."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "cases"}
        return replace(self, **{name: array[chosen] for name, array in arrays.items()})


def history_of(arrays: Mapping[str, Array]) -> History:
    """History from the arrays of a `decoupling.npz` of this or an older version."""
    if "weights" in arrays:  # The older name of the coefficients.
        arrays = {**arrays, "coefficients": arrays["weights"]}
    square = np.full(arrays["cosines"].shape, np.nan)
    by_name = {field.name: arrays.get(field.name, square) for field in fields(History) if field.name != "cases"}
    return History(cases=tuple(arrays["cases"].tolist()), **by_name)


def read_history(run: Path) -> History | None:
    """Read the decoupling log of a run; None if the run does not decouple.

    Raises:
        InputError: if the file is damaged.
    """
    path = RunFolder(run).decoupling
    if not path.exists():
        return None
    return history_of(read_decoupling(path))


# ---------------------------------------------------------------------------------------------------- by case


def by_case(history: History, values: Array) -> Array:
    """(T, C): values of (T, k) sorted into one column per case; NaN where a step lacks the case."""
    columns = np.full((len(history.step), len(history.cases)), np.nan)
    rows, slots = np.nonzero(history.case >= 0)
    columns[rows, history.case[rows, slots]] = values[rows, slots]
    return columns


def mean(values: Array, axis: int = 0) -> Array:
    """Mean of the finite values along an axis; NaN if there is none."""
    finite = np.isfinite(values)
    count = finite.sum(axis=axis)
    return np.where(count > 0, np.where(finite, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def smoothed(step: Array, values: Array, window: int = WINDOW) -> Array:
    """(T, ...): running mean of the finite values over the last `window` steps, as in Figure 4."""
    starts = np.searchsorted(step, step - window, side="right")
    rows = [mean(values[start : row + 1]) for row, start in enumerate(starts.tolist())]
    return np.array(rows).reshape(values.shape)


def mean_cosines(history: History) -> Array:
    """(C, C): mean cosine, eq. (5), over the steps with both cases; NaN if there is none."""
    return over_steps(history, history.cosines)


def conflicts(history: History) -> Array:
    """(C, C): share of conflicting steps among the steps with both cases."""
    return over_steps(history, np.where(np.isfinite(history.cosines), history.cosines < 0, np.nan))


def over_steps(history: History, values: Array) -> Array:
    """(C, C): mean over the steps of values of pairs of cases, (T, k, k)."""
    case_count = len(history.cases)
    sums, counts = np.zeros((case_count, case_count)), np.zeros((case_count, case_count))
    for cases, matrix in zip(history.case, values, strict=True):
        used = cases >= 0  # The step has fewer than k cases where this is False.
        pairs = np.ix_(cases[used], cases[used])
        of_pairs = matrix[np.ix_(used, used)]
        sums[pairs] += np.where(np.isfinite(of_pairs), of_pairs, 0.0)
        counts[pairs] += np.isfinite(of_pairs)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


# -------------------------------------------------------------------------------------------------- pairs of cases


def conflicting(history: History) -> Array:
    """(T,): share of conflicting pairs of cases in each step; NaN without a pair."""
    return mean(pairs(np.where(np.isfinite(history.cosines), history.cosines < 0, np.nan)), axis=1)


def pairs(values: Array) -> Array:
    """(T, k (k - 1) / 2): the upper triangle of symmetric (T, k, k), each pair once."""
    first, second = np.triu_indices(values.shape[-1], 1)
    return np.asarray(values[:, first, second])


def angles(history: History) -> tuple[Array, Array]:
    """Angles in degrees between pairs of gradients before and after decoupling, as in Figure 3.

    Both are (n,), for the same pairs: those in which neither gradient is zero before or after decoupling.

    >>> arrays = {"step": np.array([1]), "cases": np.array(["a", "b"]), "case": np.array([[0, 1]])}
    >>> arrays |= {"gramian": np.array([[[1.0, -1.0], [-1.0, 2.0]]])}  # rows (1, 0) and (-1, 1)
    >>> arrays |= {"copies": np.array([[[1.0, 0.5], [1.0, 1.0]]])}  # rows (.5, .5) and (0, 1)
    >>> arrays |= {"cosines": np.zeros((1, 2, 2)), "coefficients": np.zeros((1, 2)), "norms": np.zeros((1, 2))}
    >>> before, after = angles(history_of(arrays))
    >>> before.round(9).tolist(), after.round(9).tolist()
    ([135.0], [45.0])
    """
    gramian = np.where(np.isfinite(history.gramian), history.gramian, 0.0)
    copies = np.where(np.isfinite(history.copies), history.copies, 0.0)
    before, after = pairs(degrees(gramian, np.abs(gramian))), pairs(degrees(*projected(copies, gramian)))
    defined = np.isfinite(before) & np.isfinite(after)
    return before[defined], after[defined]


def projected(copies: Array, gramian: Array) -> tuple[Array, Array]:
    """Inner products W G W^T of the projected gradients, and |W| |G| |W|^T, the scale of their rounding errors.

    Both are (T, k, k), from copies W and Gramian G of the same shape.
    """
    scale = np.abs(copies) @ np.abs(gramian) @ np.abs(copies).swapaxes(1, 2)
    return copies @ gramian @ copies.swapaxes(1, 2), scale


def degrees(products: Array, scale: Array) -> Array:
    """(T, k, k): angles in degrees between the k vectors of each of T steps; NaN for vectors that are zero.

    Args:
        products: (T, k, k), inner products of the vectors.
        scale: (T, k, k), the size that the products would have if no terms cancelled; a vector whose squared length is
            below 1e-12 of it is zero up to rounding errors.
    """
    squares = np.diagonal(products, axis1=1, axis2=2)
    nonzero = squares > 1e-12 * np.diagonal(scale, axis1=1, axis2=2)
    lengths = np.where(nonzero, np.sqrt(np.where(nonzero, squares, 1.0)), np.nan)
    cosines = products / lengths[:, :, None] / lengths[:, None, :]
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))


def angle_counts(angles: Array, width: int = 10) -> Array:
    """Histogram of angles from 0 to 180 degrees in bins of `width` degrees."""
    return np.histogram(angles, bins=np.arange(0, 180 + width, width))[0]


# ------------------------------------------------------------------------------------------------- learning speed


@dataclass(frozen=True, eq=False)
class Losses:
    """Logged losses. step: (T,), ascending. values: by case, (T,) mean loss, NaN without eligible samples."""

    step: Array
    values: Mapping[str, Array]


def read_losses(run: Path) -> Losses:
    """Read the losses of a run's `metrics.jsonl`; an incomplete last line, left by a kill, is ignored."""
    entries = [
        (entry["step"], {**entry["losses"], **entry.get("other_losses", {})})
        for entry in read_log(RunFolder(run).losses)
        if "losses" in entry
    ]
    names = dict.fromkeys(name for _, losses in entries for name in losses)
    values = {name: np.array([losses.get(name, np.nan) for _, losses in entries], np.float64) for name in names}
    return Losses(np.array([step for step, _ in entries], np.int64), values)


def learning_window(losses: Losses) -> int:
    """Steps to average over: a tenth of training, but at least up to the first logged step."""
    return max(int(losses.step[-1]) // 10, int(losses.step[0]))


def loss_decrease(losses: Losses, window: int = WINDOW) -> dict[str, Array]:
    """(T,) by modality: relative decrease of the loss of the case in which it is the only modality.

    1 - l(t) / l(0), with l(t) the mean over the last `window` steps, and l(0) the mean over the first `window` steps.
    """
    decreases = {}
    for name, values in losses.values.items():
        if "+" not in name:
            initial = mean(values[losses.step <= window])
            decreases[name] = 1 - smoothed(losses.step, values, window) / (initial if initial > 0 else math.nan)
    return decreases


def learning_speed(losses: Losses) -> dict[str, list[float]]:
    """By modality: relative decrease of its loss by the end of each third of training.

    As `loss_decrease`, with windows of `learning_window`. The learning speed in a third is how much the decrease grows
    from the end of the third before; in the first third, from 0.
    """
    if not len(losses.step):
        return {}
    last = int(losses.step[-1])
    ends = np.searchsorted(losses.step, [last / 3, 2 * last / 3, last], side="right") - 1
    by_modality = loss_decrease(losses, learning_window(losses))
    return {
        name: [float(values[end]) if end >= 0 else math.nan for end in ends] for name, values in by_modality.items()
    }


# ------------------------------------------------------------------------------------------------ summaries for JSON


def summary(history: History) -> dict[str, Any]:
    """Summary of steps for JSON; undefined numbers are None.

    conflicting: mean share of conflicting pairs. norms, coefficients: by case, means over the steps with that case.
    cosines: matrix in the order of `cases`. pairs: the most negative mean cosine first, with the share of steps in
    which the pair conflicts. angles: counts in bins of 10 degrees, before and after decoupling.
    """
    cosines, shares = mean_cosines(history), conflicts(history)
    first, second = np.triu_indices(len(history.cases), 1)
    measured = [(i, j) for i, j in zip(first, second, strict=True) if np.isfinite(cosines[i, j])]
    measured.sort(key=lambda pair: cosines[pair])
    before, after = angles(history)
    content = {
        "steps": len(history.step),
        "conflicting": float(mean(conflicting(history))),
        "norms": mean_by_case(history, history.norms),
        "coefficients": mean_by_case(history, history.coefficients),
        "cases": list(history.cases),
        "cosines": cosines.tolist(),
        "pairs": [
            {
                "cases": [history.cases[i], history.cases[j]],
                "cosine": float(cosines[i, j]),
                "conflicting": float(shares[i, j]),
            }
            for i, j in measured
        ],
        "angles": {"before": angle_counts(before).tolist(), "after": angle_counts(after).tolist()},
    }
    valid_in_json: dict[str, Any] = without_nan(content)
    return valid_in_json


def mean_by_case(history: History, values: Array) -> dict[str, float]:
    """Mean by case of values (T, k), over the steps with that case."""
    return dict(zip(history.cases, mean(by_case(history, values)).tolist(), strict=True))


def training_summary(history: History) -> dict[str, Any]:
    """`summary` of all logged steps, and the same for each third of training with its last step (`thirds`)."""
    last = int(history.step[-1])
    ends = [last / 3, 2 * last / 3, last]
    parts = [history.between(first, end) for first, end in zip([0.0, *ends], ends, strict=False)]
    thirds = [
        {
            "until": math.floor(end),
            "conflicting": float(mean(conflicting(part))),
            "coefficients": mean_by_case(part, part.coefficients),
        }
        for part, end in zip(parts, ends, strict=True)
    ]
    return {**summary(history), "thirds": without_nan(thirds)}


def without_nan(content: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot represent, by None, at any depth of dictionaries and lists."""
    if isinstance(content, dict):
        return {name: without_nan(value) for name, value in content.items()}
    if isinstance(content, list):
        return [without_nan(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def diagnosis(run: Path, now: History) -> dict[str, Any]:
    """Result of `anysubset diagnose`, for JSON.

    Its key `now` holds the summary of the trained weights, `training` that of the decoupling log (None if the run does
    not decouple), and `learning` the `learning_speed`.

    Args:
        run: the run folder, whose logs are read.
        now: gradients of the trained weights, one step per batch.
    """
    history = read_history(run)
    return {
        "now": summary(now),
        "training": training_summary(history) if history is not None else None,
        "learning": without_nan(learning_speed(read_losses(run))),
    }
