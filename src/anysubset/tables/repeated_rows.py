"""Samples with the same values in a modality, as a pipeline leaves them that filled missing modalities in."""

from collections import Counter

from anysubset.batches import Observed

LEAST, SHARE = 5, 0.05  # Samples with the same values, and their share of those that have the modality.
DISTINCT = 0.9  # Share of the other samples that differ from each other, as measurements do and categories do not.


def note_on_repeated_rows(name: str, observed: Observed) -> list[str]:
    """A line if many samples have the same values in a modality and all others differ; none otherwise.

    An imputer gives every sample that lacks a modality the same row. It is not looked for in a single column, where
    zeros are common.
    """
    flat = observed.values.flatten(1).numpy()
    if flat.shape[1] < 2:
        return []
    counts = Counter(row.tobytes() for row in flat)
    (_, most), *_ = counts.most_common(1)
    others = len(flat) - most
    if most < max(LEAST, SHARE * len(flat)) or not others or len(counts) - 1 < DISTINCT * others:
        return []
    return [
        f"{most} of {len(flat)} samples have the same values in {name}, and the others differ: if a pipeline filled in "
        "a missing modality (SimpleImputer, fillna), leave its rows NaN, so that it counts as missing."
    ]
