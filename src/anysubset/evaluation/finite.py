"""Name the samples whose predictions or scores are not finite (NaN or infinite), instead of writing them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from anysubset.errors import InputError, listed
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import Score

LISTED = 5  # Samples that are named in a message.


class NonFiniteError(InputError):
    """A method has no finite prediction, or no finite score, for some samples.

    what: the predictions or scores. advice: what to try.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what[:1].upper()}{what[1:]}. {advice}")
        self.what = what


def nonfinite(outputs: Tensor, ids: Sequence[str]) -> list[str]:
    """Ids of the samples with an output that is NaN or infinite; outputs (n, ...) of n samples."""
    finite = outputs.isfinite()
    if bool(finite.all()):  # One synchronisation with a GPU.
        return []
    rows = finite.flatten(1).all(dim=1).tolist()
    return [sample for sample, is_finite in zip(ids, rows, strict=True) if not is_finite]


def check_finite(outputs: Tensor, ids: Sequence[str]) -> None:
    """Raise InputError if the output of a sample in memory is NaN or infinite; `ids` are their numbers from 0."""
    missing = nonfinite(outputs, ids)
    if missing:
        raise InputError(
            f"The predictions for {len(missing)} samples are NaN or infinite, the first for sample {missing[0]}: their "
            "values are far out of the range of the training data."
        )


def nonfinite_error(
    samples: Mapping[str, Iterable[Scenario]], noun: str, total: int, written: Path | None = None
) -> NonFiniteError:
    """The error that names samples without a finite prediction.

    Args:
        samples: id -> scenarios without a finite prediction.
        noun: word for samples, such as patients.
        total: number of samples that were predicted.
        written: file or folder with the other predictions, if they were written.
    """
    parts = (f"{sample!r} (from {listed(map(scenario_name, chosen), most=2)})" for sample, chosen in samples.items())
    return NonFiniteError(
        f"the predictions for {len(samples)} of {total} {noun} are not finite (NaN or infinite): "
        f"{listed(parts, most=LISTED)}",
        "Their values are out of the range of the training data, or the training diverged: check these samples, or "
        "train with a lower train.lr or with train.clip 1." + (f" The others are in {written}." if written else ""),
    )


def check_scores(scores: Iterable[Score]) -> None:
    """Raise NonFiniteError if a score is NaN or infinite, which no table of scores can hold."""
    for score in scores:
        if not math.isfinite(score.value):
            raise NonFiniteError(
                f"the {score.metric} of sample {score.sample!r} from {scenario_name(score.scenario)} is {score.value}",
                "Its prediction is out of range: train with a lower train.lr or with train.clip 1.",
            )
