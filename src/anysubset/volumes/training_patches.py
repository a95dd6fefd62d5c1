"""Random augmented patches of prepared patients, for training.

The random numbers of a patch depend on the seed and on the number of the patch in the run, not on earlier draws: a
resumed run and one with more workers see the same patches.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Dataset

from anysubset.errors import InputError
from anysubset.experiments.data_settings import AugmentSettings
from anysubset.volumes.augmentation import patches
from anysubset.volumes.preprocessing import Prepared

Key = tuple[int, int]
Item = tuple[dict[str, Tensor], Tensor, str]


class TrainingPatches(Dataset[Item]):
    """Augmented patches of patients; a key is (index of the patient, number of the patch).

    Args:
        prepared: returns the prepared patient of an id.
        ids: of the patients.
        patch: size in voxels: two numbers for slices across the last axis, three for volumes.
        augment: settings of the augmentation.
        seed: of the order of patients and of the augmentation.
    """

    def __init__(
        self,
        prepared: Callable[[str], Prepared],
        ids: Sequence[str],
        patch: tuple[int, ...],
        augment: AugmentSettings,
        seed: int,
    ) -> None:
        self.prepared = prepared
        self.ids = ids
        self.seed = seed
        self.share = augment.foreground
        self.anywhere = patches(patch, augment, centred=False)
        self.centred = patches(patch, augment, centred=True)

    def keys(self, first: int, last: int) -> list[Key]:
        """Keys of patches `first` to `last` - 1; an epoch has every patient once, in random order."""
        keys = []
        for number in range(first, last):
            epoch, position = divmod(number, len(self.ids))
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.ids))
            keys.append((int(order[position]), number))
        return keys

    def __getitem__(self, key: Key) -> Item:
        index, number = key
        patient = self.prepared(self.ids[index])
        if patient.target is None:
            raise InputError(f"Patient {patient.id!r} has no label.")
        whole = {
            "image": patient.image_of(patient.modalities),
            "target": patient.box.of(patient.target).to(torch.uint8),
        }
        inside = whole["target"].any(dim=0, keepdim=True)
        transform = self.anywhere
        # MONAI needs voxels inside and outside the regions to choose centres from.
        if self.share > 0 and inside.any() and not inside.all():
            transform = self.centred
            whole["centres"] = inside.to(torch.uint8)
        transform.set_random_state(int(np.random.default_rng([self.seed, 1, number]).integers(2**32)))
        patch = untracked(transform, whole)
        image, target = patch["image"].contiguous(), patch["target"].contiguous()
        inputs = {name: image[i : i + 1].float() for i, name in enumerate(patient.modalities)}
        return inputs, target > 0, patient.id


def untracked(transform: Compose, item: dict[str, Tensor]) -> dict[str, Tensor]:
    """Transform an item without MONAI's record of transforms in every tensor, which takes half of the time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        transformed = transform(item)
    finally:
        set_track_meta(before)
    # MONAI returns a list if a transform can return several crops.
    first: dict[str, Tensor] = transformed[0] if isinstance(transformed, list) else transformed
    return first
