"""Mean fusion over what is present (eq. 2)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.errors import InputError


def mean(features: Mapping[str, Tensor]) -> Tensor:
    """The mean over the modalities of features of one shape.

    Summed in the order of the names, so that the order of the keys cannot change a bit.
    """
    if not features:
        raise InputError("There is nothing to fuse: no modality is present.")
    names = sorted(features)
    total = features[names[0]]
    for name in names[1:]:
        total = total + features[name]
    return total / len(names)


def mean_of_present(features: Mapping[str, Observed]) -> Tensor:
    """(batch, ...): for each sample the mean over the modalities that it has, whichever they are."""
    if not features:
        raise InputError("There is nothing to fuse: no modality is present.")
    batch = 1 + max(int(observed.indices.max()) for observed in features.values())
    if all(len(observed.indices) == batch for observed in features.values()):
        return mean({name: observed.values for name, observed in features.items()})
    some = next(iter(features.values())).values
    total = some.new_zeros(batch, *some.shape[1:])
    counts = torch.zeros(batch)
    for name in sorted(features):
        rows = features[name].indices
        total = total.index_add(0, rows.to(some.device), features[name].values)
        counts[rows] += 1
    if not counts.all():
        raise InputError("A sample of the batch has none of the modalities.")
    return total / counts.to(some).view(-1, *[1] * (some.ndim - 1))
