"""Random augmented patches of prepared patients, for training.

The random numbers of a patch depend on the seed and on the number of the patch in the run, not on earlier draws: a
resumed run and one with more workers see the same patches.
"""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from anysubset.errors import InputError
from anysubset.experiments.data_settings import AugmentSettings
from anysubset.tasks.segmentation import regions_of_labels
from anysubset.volumes.augmentation import Augmentation
from anysubset.volumes.cropping import draw_crop, padded
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
        self.patch = tuple(patch)
        self.share = augment.foreground
        self.augmentation = Augmentation(len(patch), augment)

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
        image, labels = self.draw(patient, np.random.default_rng([self.seed, 1, number]))
        inputs = {name: image[i : i + 1] for i, name in enumerate(patient.modalities)}
        return inputs, regions_of_labels(labels, patient.regions), patient.id

    def draw(self, patient: Prepared, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Draw a patch: the image, (modalities, *patch) float32, and the labels, (*patch) uint8."""
        labels = patient.labels_in(patient.box)
        if labels is None:
            raise InputError(f"Patient {patient.id!r} has no label.")
        size = (*self.patch, 1)[:3]
        box = draw_crop(labels, size, self.share, generator)
        flips = self.augmentation.draw_flips(generator)
        # Flipped before the conversion to float32, since half as many bytes are moved.
        image = padded(patient.normalised(box.of(patient.image).flip(flips)), size)
        patch_of_labels = padded(box.of(labels)[None].flip(flips), size)[0]
        shape = (len(image), *self.patch)
        return self.augmentation(image.reshape(shape), patch_of_labels.reshape(self.patch), generator)
