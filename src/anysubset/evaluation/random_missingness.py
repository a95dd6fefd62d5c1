"""Score random missingness: each sample with the modalities that one random draw leaves it, equal for all methods.

No prediction is needed: every sample was scored in every scenario, and the draw selects one of these scores. Its rows
in `scores.csv` are called `random:RATE` and enter no mean over scenarios. Every sample keeps at least one of M
modalities, so at most a rate of 1 - 1/M can be reached, and rows are named by the rate that was reached:
`random:0.667` for a rate of 0.7 of three modalities.
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
from anysubset.system.numbers import check_seed

PREFIX = "random:"


def draw_missingness(dataset: Dataset, split: str, rates: Sequence[float], seed: int = 0) -> dict[str, Present]:
    """By name of the rows, such as `random:0.3`: the modalities that each sample of a split keeps at this rate.

    A draw depends only on the seed, the rate and the present modalities. A modality that is missing at one rate is
    missing at all higher rates.

    Raises:
        InputError: if a rate is not a probability, or two rates are reached by the same draw.
    """
    check_seed(seed)
    present = dict(zip(dataset.ids(split), dataset.present(split), strict=True))
    draws: dict[str, Present] = {}
    for rate in rates:
        name = f"{PREFIX}{true_rate(present, rate):.3g}"
        if name in draws:
            raise InputError(f"Rates {', '.join(map(str, rates))} give {name} twice; leave one out.")
        draws[name] = remove_at_random(present, rate, np.random.default_rng(seed))
    return draws


def scores_of_draws(scores: Sequence[Score], draws: Mapping[str, Present], dataset: Dataset) -> list[Score]:
    """Scores of every sample in every draw, and the metrics over the set of each draw."""
    selected = []
    for name, present in draws.items():
        of_draw = scores_of_draw(scores, present, name)
        selected += of_draw + dataset.over_set(of_draw)
    return selected


def scores_of_draw(scores: Iterable[Score], present: Mapping[str, Scenario], name: str) -> list[Score]:
    """Scores of each sample in the scenario of its present modalities, under the name of the draw.

    Metrics over the set are left out; those of the draw are computed from the returned scores.

    Raises:
        InputError: if a sample was not scored in its scenario.
    """
    selected = [
        Score((name,), score.sample, score.metric, score.region, score.value)
        for score in scores
        if score.sample != ALL and present.get(score.sample) == score.scenario
    ]
    unscored = sorted(set(present) - {score.sample for score in selected})
    if unscored:
        sample, scenario = unscored[0], scenario_name(present[unscored[0]])
        raise InputError(f"Sample {sample!r} has no score in {scenario}, its modalities in {name}; score it first.")
    return selected


def write_draws(folder: Path, draws: Mapping[str, Present], dataset: Dataset, split: str, seed: int) -> None:
    """Write each draw as a missingness file, named after the split, its fingerprint and the rate."""
    if draws:
        folder.mkdir(parents=True, exist_ok=True)
    for name, present in draws.items():
        rate = name.removeprefix(PREFIX)
        about = {"how": f"{name} at evaluation", "seed": seed, "split": split, "missing": float(rate)}
        write_missingness(folder / f"{split}-{dataset.split_hash(split)}-{rate}.json", present, about)
