"""The protocol of random missing: every sample is scored on what a drawn mask leaves of it, the same for every method.

Nothing is predicted for it: the scores of every sample in every scenario are there, and a mask says which one counts.
Its rows stand in `scores.csv` beside the scenarios, as `random:0.3`, and never enter a mean over these. Above a rate of
1 - 1/M one modality still stays, so rows carry the rate that was reached: `random:0.667` for 0.7 of three modalities.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from anysubset.datasets.amputation import remove_at_random, true_rate
from anysubset.datasets.dataset import Dataset
from anysubset.datasets.missingness import Present, write_missingness
from anysubset.errors import InputError
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.scores import ALL, Score

PREFIX = "random:"


def draw_masks(dataset: Dataset, split: str, rates: Sequence[float], seed: int = 0) -> dict[str, Present]:
    """For each rate, under the name of its rows, what is left of every sample of a split.

    Each depends on the seed, the rate and what is present alone; a modality that is missing at a rate is missing at
    every higher one.

    Raises:
        InputError: if a rate is no probability, or two of them come to the same.
    """
    if seed < 0:
        raise InputError(f"The seed must be 0 or more, not {seed}.")
    present = dict(zip(dataset.ids(split), dataset.present(split), strict=True))
    masks: dict[str, Present] = {}
    for rate in rates:
        name = f"{PREFIX}{true_rate(present, rate):.3g}"
        if name in masks:
            raise InputError(f"Rates {', '.join(map(str, rates))} hold the rate of {name} twice; leave one out.")
        masks[name] = remove_at_random(present, rate, np.random.default_rng(seed))
    return masks


def under_masks(scores: Sequence[Score], masks: Mapping[str, Present], dataset: Dataset) -> list[Score]:
    """The scores of every sample under every mask, and those over the set."""
    found = []
    for name, left in masks.items():
        drawn = under_mask(scores, left, name)
        found += drawn + dataset.over_set(drawn)
    return found


def under_mask(scores: Iterable[Score], left: Mapping[str, Scenario], name: str) -> list[Score]:
    """For each sample, its scores in the scenario that a mask left it in, under the name of the mask.

    Metrics over the set are left out: those of the mask follow from what this returns.

    Raises:
        InputError: if a sample was not scored in its scenario.
    """
    found = [
        Score((name,), score.sample, score.metric, score.region, score.value)
        for score in scores
        if score.sample != ALL and left.get(score.sample) == score.scenario
    ]
    lacking = sorted(set(left) - {score.sample for score in found})
    if lacking:
        scenario = scenario_name(left[lacking[0]])
        raise InputError(f"Sample {lacking[0]!r} has no score in {scenario}, which {name} leaves it; score it there.")
    return found


def write_masks(folder: Path, masks: Mapping[str, Present], dataset: Dataset, split: str, seed: int) -> None:
    """Each mask as a missingness file, named after the split, its fingerprint and the rate."""
    if masks:
        folder.mkdir(parents=True, exist_ok=True)
    for name, left in masks.items():
        rate = name.removeprefix(PREFIX)
        about = {"how": f"{name} at evaluation", "seed": seed, "split": split, "missing": float(rate)}
        write_missingness(folder / f"{split}-{dataset.split_hash(split)}-{rate}.json", left, about)
