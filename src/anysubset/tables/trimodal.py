"""Utterances made from a seed: text that knows much, audio that knows less, and vision that knows little.

What an utterance is: a sentiment from -3 to 3, which each modality sees through noise of its own, as a direction among
its values that is added to every step; beside it lie noise of each step and a habit of each video. Correlation with
the sentiment is all that can be had from a modality, and it is built in (`CORRELATION`); so is that one in ten
utterances is neutral, exactly 0. Missingness depends on the sentiment: vision is rarer where it is positive, audio
where it is negative. So the cases of audio and of vision see other targets, and pull what they share apart as soon as
the answers lie about the middle of the targets, which takes a few steps from where chance put them: the conflict that a
method has to deal with. With complete samples there is none but what chance makes.

What it is not: language, speech or faces. A score on it says that the program works, and how a method behaves when one
modality dominates; it says nothing about people.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.batches import Observed
from anysubset.errors import InputError, unknown
from anysubset.tables.table import Origin, Table

Array = NDArray[np.float32]

MODALITIES = ("text", "audio", "vision")
CORRELATION = {"text": 0.85, "audio": 0.5, "vision": 0.3}  # Of what a modality shows with the sentiment.
SIZES = {"text": 300, "audio": 5, "vision": 20}  # As many as in the usual files of CMU-MOSI.
INFORMED = {"text": 0.0, "audio": -0.8, "vision": 0.8}  # How much likelier missing where positive; less where negative.

SHARE_OF_ZEROS = 0.1
SPREAD = 1.3  # Standard deviation of the sentiment before it is cut off at -3 and 3.
SIGNAL = 4.0  # Length of what is added to each step, in the standard deviation of a step's noise.
HABIT = 0.3  # Standard deviation of a value between videos, in the same unit.
FEWEST_STEPS = 3
PER_VIDEO = 8


def trimodal(
    counts: Mapping[str, int] | None = None,
    sizes: Mapping[str, int] = SIZES,
    steps: int = 20,
    missing_rate: float = 0.3,
    missing_splits: Sequence[str] = ("train",),
    informed: Mapping[str, float] = INFORMED,
    seed: int = 0,
) -> Table:
    """A table of utterances, eight to a video; target: sentiment, regression; groups: videos; splits: as counted.

    Each utterance depends on the seed, its split's place and its number there alone, and each modality has its own
    number of steps. In `missing_splits` a modality is missing with probability `missing_rate` on average, but text
    stays where nothing else would.

    Args:
        counts: utterances by split; default 480 to train, 80 for val, 160 for test.
        sizes: by modality, the length of the vector of a step.
        steps: the most that a modality of an utterance has.
        missing_rate, missing_splits: how often a modality is missing, and where.
        informed: by modality, how much likelier it is missing where the sentiment is positive, and how much less likely
            where it is negative; empty for missing completely at random, and no conflict by design.
    """
    counts = {"train": 480, "val": 80, "test": 160} if counts is None else counts
    refuse_wrong_input(counts, sizes, steps, missing_rate, missing_splits, seed)
    generator = np.random.default_rng([seed, 0])
    directions = {name: direction(generator, sizes[name]) for name in MODALITIES}
    ids: list[str] = []
    groups: list[str] = []
    target: list[float] = []
    splits: dict[str, tuple[str, ...]] = {}
    shown: dict[str, list[tuple[int, Array]]] = {name: [] for name in MODALITIES}
    for place, (split, count) in enumerate(counts.items()):
        for number in range(count):
            video, clip = divmod(number, PER_VIDEO)
            habits = habits_of(np.random.default_rng([seed, 1, place, video]), sizes)
            generator = np.random.default_rng([seed, 2, place, number])
            sentiment = draw_sentiment(generator)
            sequences = {
                name: show(generator, name, sentiment, directions[name], habits[name], steps) for name in MODALITIES
            }
            lost = draw_lost(generator, sentiment, missing_rate if split in missing_splits else 0.0, informed)
            for name in MODALITIES:
                if name not in lost:
                    shown[name].append((len(ids), sequences[name]))
            groups.append(f"{split}_{video:03d}")
            ids.append(f"{groups[-1]}/{clip}")
            target.append(sentiment)
        splits[split] = tuple(ids[len(ids) - count :])
    return Table(
        ids=tuple(ids),
        inputs={name: observed(found, steps) for name, found in shown.items() if found},
        target=torch.tensor(target),
        groups=tuple(groups),
        splits=splits,
        origin=Origin("synthetic utterances"),
    )


def draw_sentiment(generator: np.random.Generator) -> float:
    """From -3 to 3; exactly 0 where it is neutral, and never otherwise."""
    drawn = float(np.clip(SPREAD * generator.standard_normal(), -3, 3))
    return 0.0 if generator.random() < SHARE_OF_ZEROS else drawn


def show(
    generator: np.random.Generator, name: str, sentiment: float, direction: Array, habit: Array, steps: int
) -> Array:
    """(time, size): what one modality shows of a sentiment."""
    correlation = CORRELATION[name]
    seen = correlation * sentiment / SPREAD + np.sqrt(1 - correlation**2) * generator.standard_normal()
    length = int(generator.integers(FEWEST_STEPS, steps + 1))
    noise = generator.standard_normal((length, len(direction)))
    shown: Array = (SIGNAL * seen * direction + habit + noise).astype(np.float32)
    return shown


def draw_lost(generator: np.random.Generator, sentiment: float, rate: float, informed: Mapping[str, float]) -> set[str]:
    """The modalities that are missing."""
    draws = dict(zip(MODALITIES, generator.random(len(MODALITIES)).tolist(), strict=True))
    lost = {
        name for name in MODALITIES if draws[name] < rate * (1 + informed.get(name, 0.0) * float(np.sign(sentiment)))
    }
    return lost - {"text"} if len(lost) == len(MODALITIES) else lost


def direction(generator: np.random.Generator, size: int) -> Array:
    """(size,), of length 1."""
    drawn = generator.standard_normal(size)
    unit: Array = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return unit


def habits_of(generator: np.random.Generator, sizes: Mapping[str, int]) -> dict[str, Array]:
    """By modality, (size,): what all utterances of a video share."""
    return {name: (HABIT * generator.standard_normal(sizes[name])).astype(np.float32) for name in MODALITIES}


def observed(found: list[tuple[int, Array]], steps: int) -> Observed:
    """Sequences and their places, as one modality of a table."""
    width = found[0][1].shape[1]
    values = np.zeros((len(found), steps, width), np.float32)
    valid = np.zeros((len(found), steps), bool)
    for place, (_, sequence) in enumerate(found):
        values[place, : len(sequence)] = sequence
        valid[place, : len(sequence)] = True
    rows = torch.tensor([row for row, _ in found])
    return Observed(torch.from_numpy(values), rows, torch.from_numpy(valid))


def refuse_wrong_input(
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
    steps: int,
    missing_rate: float,
    missing_splits: Sequence[str],
    seed: int,
) -> None:
    """Before anything is drawn."""
    if not counts or min(counts.values()) < 1:
        raise InputError(f"The counts are {dict(counts)}. Give at least one utterance to each split.")
    if set(sizes) != set(MODALITIES) or min(sizes.values()) < 1:
        raise InputError(f"The sizes are {dict(sizes)}. Give each of {', '.join(MODALITIES)} at least one.")
    if steps < FEWEST_STEPS:
        raise InputError(f"The most steps are {steps}. Give {FEWEST_STEPS} or more.")
    # A rate of 1/2 already takes vision away from nine positive utterances in ten.
    if not 0 <= missing_rate <= 0.5:
        raise InputError(f"The missing rate is {missing_rate}. Give 0 to 0.5.")
    if seed < 0:
        raise InputError(f"The seed is {seed}. Give 0 or more.")
    for split in missing_splits if missing_rate > 0 else ():
        if split not in counts:
            raise unknown("split", split, counts)
