"""Synthetic utterances, drawn from a seed: text is most informative of the sentiment, then audio, then vision.

Each utterance has a sentiment from -3 to 3. A modality observes it with noise and adds it to every step along a fixed
direction, beside noise of each step and an offset of each video. The correlation of a modality with the sentiment is
set by `CORRELATION`, and one in ten utterances is neutral, exactly 0.

Missingness depends on the sentiment: vision is missing more often if it is positive, audio if it is negative. The cases
of audio and vision therefore have different targets. Their gradients conflict once predictions are near the middle of
the targets, a few steps after the random initialisation. With complete samples there is no conflict by design.

The data are neither language, speech nor faces. A score on them shows that the program works and how a method behaves
when one modality dominates; it says nothing about people.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.batches import Observed
from anysubset.errors import InputError, unknown
from anysubset.system.numbers import check_seed
from anysubset.tables.table import Origin, Table

Array = NDArray[np.float32]

MODALITIES = ("text", "audio", "vision")
CORRELATION = {"text": 0.85, "audio": 0.5, "vision": 0.3}  # Of a modality's observation with the sentiment.
SIZES = {"text": 300, "audio": 5, "vision": 20}  # As many as in the usual files of CMU-MOSI.
# Relative change of the missing rate if the sentiment is positive; the opposite if it is negative.
INFORMED = {"text": 0.0, "audio": -0.8, "vision": 0.8}

SHARE_OF_ZEROS = 0.1
SPREAD = 1.3  # Standard deviation of the sentiment before it is cut off at -3 and 3.
SIGNAL = 4.0  # Length of the vector added to each step, in standard deviations of a step's noise.
HABIT = 0.3  # Standard deviation of the offset of a value between videos, in the same unit.
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
    """Draw a table of utterances, eight to a video. The target is the sentiment (regression), groups are the videos.

    An utterance depends only on the seed, the position of its split and its number within the split. Modalities have
    different numbers of steps. A sample keeps text if it would have no modality left.

    Args:
        counts: number of utterances by split; by default 480 in train, 80 in val and 160 in test.
        sizes: length of the vector of a step, by modality.
        steps: largest number of steps of a modality.
        missing_rate: mean probability that a modality is missing, up to 0.5.
        missing_splits: splits in which modalities are missing.
        informed: relative change of the missing rate of a modality if the sentiment is positive, and the opposite if it
            is negative; empty for missing completely at random, without conflict by design.

    Raises:
        InputError: if an argument is out of range.
    """
    counts = {"train": 480, "val": 80, "test": 160} if counts is None else counts
    check_arguments(counts, sizes, steps, missing_rate, missing_splits, seed)
    generator = np.random.default_rng([seed, 0])
    directions = {name: direction(generator, sizes[name]) for name in MODALITIES}
    ids: list[str] = []
    groups: list[str] = []
    target: list[float] = []
    splits: dict[str, tuple[str, ...]] = {}
    observations: dict[str, list[tuple[int, Array]]] = {name: [] for name in MODALITIES}
    for split_number, (split, count) in enumerate(counts.items()):
        for number in range(count):
            video, clip = divmod(number, PER_VIDEO)
            habits = habits_of(np.random.default_rng([seed, 1, split_number, video]), sizes)
            generator = np.random.default_rng([seed, 2, split_number, number])
            sentiment = draw_sentiment(generator)
            sequences = {
                name: draw_sequence(generator, name, sentiment, directions[name], habits[name], steps)
                for name in MODALITIES
            }
            missing = draw_missing(generator, sentiment, missing_rate if split in missing_splits else 0.0, informed)
            for name in MODALITIES:
                if name not in missing:
                    observations[name].append((len(ids), sequences[name]))
            groups.append(f"{split}_{video:03d}")
            ids.append(f"{groups[-1]}/{clip}")
            target.append(sentiment)
        splits[split] = tuple(ids[len(ids) - count :])
    return Table(
        ids=tuple(ids),
        inputs={name: observed(sequences, steps) for name, sequences in observations.items() if sequences},
        target=torch.tensor(target),
        groups=tuple(groups),
        splits=splits,
        origin=Origin("synthetic utterances"),
    )


def draw_sentiment(generator: np.random.Generator) -> float:
    """Draw a sentiment from -3 to 3; exactly 0 with probability `SHARE_OF_ZEROS`."""
    drawn = float(np.clip(SPREAD * generator.standard_normal(), -3, 3))
    return 0.0 if generator.random() < SHARE_OF_ZEROS else drawn


def draw_sequence(
    generator: np.random.Generator, name: str, sentiment: float, direction: Array, habit: Array, steps: int
) -> Array:
    """Draw the sequence of one modality, (time, size).

    Args:
        generator: of the utterance.
        name: of the modality.
        sentiment: of the utterance.
        direction: (size,), along which the sentiment is added to every step.
        habit: (size,), offset of the video.
        steps: largest number of steps.
    """
    correlation = CORRELATION[name]
    seen = correlation * sentiment / SPREAD + np.sqrt(1 - correlation**2) * generator.standard_normal()
    length = int(generator.integers(FEWEST_STEPS, steps + 1))
    noise = generator.standard_normal((length, len(direction)))
    sequence: Array = (SIGNAL * seen * direction + habit + noise).astype(np.float32)
    return sequence


def draw_missing(
    generator: np.random.Generator, sentiment: float, rate: float, informed: Mapping[str, float]
) -> set[str]:
    """Draw the missing modalities of an utterance, never all of them."""
    draws = dict(zip(MODALITIES, generator.random(len(MODALITIES)).tolist(), strict=True))
    missing = {
        name for name in MODALITIES if draws[name] < rate * (1 + informed.get(name, 0.0) * float(np.sign(sentiment)))
    }
    return missing - {"text"} if len(missing) == len(MODALITIES) else missing


def direction(generator: np.random.Generator, size: int) -> Array:
    """Draw a direction, (size,), of length 1."""
    drawn = generator.standard_normal(size)
    unit: Array = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return unit


def habits_of(generator: np.random.Generator, sizes: Mapping[str, int]) -> dict[str, Array]:
    """Draw the offset of a video that all of its utterances share, (size,) by modality."""
    return {name: (HABIT * generator.standard_normal(sizes[name])).astype(np.float32) for name in MODALITIES}


def observed(sequences: list[tuple[int, Array]], steps: int) -> Observed:
    """Make a modality from pairs of the index of a sample and its sequence (time, size), padded to `steps`."""
    width = sequences[0][1].shape[1]
    values = np.zeros((len(sequences), steps, width), np.float32)
    valid = np.zeros((len(sequences), steps), bool)
    for row, (_, sequence) in enumerate(sequences):
        values[row, : len(sequence)] = sequence
        valid[row, : len(sequence)] = True
    indices = torch.tensor([index for index, _ in sequences])
    return Observed(torch.from_numpy(values), indices, torch.from_numpy(valid))


def check_arguments(
    counts: Mapping[str, int],
    sizes: Mapping[str, int],
    steps: int,
    missing_rate: float,
    missing_splits: Sequence[str],
    seed: int,
) -> None:
    """Raise InputError if an argument of `trimodal` is out of range."""
    if not counts or min(counts.values()) < 1:
        raise InputError(f"The counts are {dict(counts)}. Give at least one utterance to each split.")
    if set(sizes) != set(MODALITIES) or min(sizes.values()) < 1:
        raise InputError(f"The sizes are {dict(sizes)}. Give at least one value to {', '.join(MODALITIES)} each.")
    if steps < FEWEST_STEPS:
        raise InputError(f"The largest number of steps is {steps}. Give {FEWEST_STEPS} or more.")
    # At a rate of 1/2, nine in ten positive utterances already lack vision.
    if not 0 <= missing_rate <= 0.5:
        raise InputError(f"The missing rate is {missing_rate}. Give 0 to 0.5.")
    check_seed(seed)
    for split in missing_splits if missing_rate > 0 else ():
        if split not in counts:
            raise unknown("split", split, counts)
