"""Fusion of the modalities that are present: by their mean (eq. 2), or by their mean and variance."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.errors import InputError


def mean(features: Mapping[str, Tensor]) -> Tensor:
    """Mean over the modalities of features of one shape.

    The sum runs in alphabetical order of the names, so that the result does not depend on the order of the keys, not
    even in rounding.
    """
    if not features:
        raise InputError("No modality is present, so there are no features to fuse.")
    names = sorted(features)
    total = features[names[0]]
    for name in names[1:]:
        total = total + features[name]
    return total / len(names)


def mean_and_variance(features: Mapping[str, Tensor]) -> Tensor:
    """First two moments over the modalities, side by side in dimension 1: (n, channels, ...) -> (n, 2 channels, ...).

    The modalities are stacked in alphabetical order of their names, so that the order of the keys does not matter.

    Raises:
        InputError: if there is no modality.
    """
    if not features:
        raise InputError("No modality is present, so there are no features to fuse.")
    stacked = torch.stack([features[name] for name in sorted(features)])
    variance = stacked.var(dim=0, correction=0)  # Of one modality alone it is 0, not NaN.
    return torch.cat([stacked.mean(dim=0), variance], dim=1)


def mean_of_present(features: Mapping[str, Observed]) -> Tensor:
    """Mean, for each sample of a batch, over the modalities that this sample has: (batch, ...)."""
    if not features:
        raise InputError("No modality is present, so there are no features to fuse.")
    batch = 1 + max(int(observed.indices.max()) for observed in features.values())
    if all(len(observed.indices) == batch for observed in features.values()):
        return mean({name: observed.values for name, observed in features.items()})
    first = next(iter(features.values())).values
    total = first.new_zeros(batch, *first.shape[1:])
    counts = torch.zeros(batch)
    for name in sorted(features):
        indices = features[name].indices
        total = total.index_add(0, indices.to(first.device), features[name].values)
        counts[indices] += 1
    if not counts.all():
        raise InputError("A sample of the batch has none of the modalities.")
    return total / counts.to(first).view(-1, *[1] * (first.ndim - 1))


def zero_filled(features: Mapping[str, Tensor], modalities: Iterable[str]) -> Tensor:
    """Stack features in the order of the modalities, 0 where one is missing: (n, modalities, ...).

    features: (n, ...) for each present modality, all of one shape; at least one.
    """
    zeros = torch.zeros_like(next(iter(features.values())))
    return torch.stack([features.get(modality, zeros) for modality in modalities], dim=1)
