"""Recognise masks by their voxels, where the name of a file does not say that it holds one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import listed
from anysubset.volumes.spellings import recognised
from anysubset.volumes.voxels import background

MOST_VALUES = 10  # An image has more values; a mask has one for every structure.


def has_few_whole_values(volume: NDArray[np.float32]) -> bool:
    """True if a volume has at most ten values, all of them whole numbers from 0 to 255, as masks have."""
    # Almost every image differs in its first few voxels, so this is fast.
    if len(np.unique(volume.ravel()[::997])) > MOST_VALUES:
        return False
    if volume.min() < 0 or volume.max() > 255 or (volume != np.round(volume)).any():
        return False
    return bool(np.count_nonzero(np.bincount(volume.astype(np.uint8).ravel())) <= MOST_VALUES)


def repeats_label(volume: NDArray[np.float32], label: NDArray[np.uint8] | None) -> bool:
    """True if a volume is nonzero in exactly the voxels in which a label is; never for an empty label."""
    return label is not None and bool(label.any()) and np.array_equal(volume != 0, label != 0)


def fills_image(label: NDArray[np.uint8], volumes: list[NDArray[np.float32]]) -> bool:
    """True if a label covers nearly all that the images show, as a mask of the brain does."""
    shown = np.any([volume != background(volume) for volume in volumes], axis=0)
    inside = np.count_nonzero(shown)
    # Images that were not skull-stripped show something everywhere; a label does not fill those.
    return bool(0 < inside < label.size * 0.95 and np.count_nonzero((label != 0) & shown) > 0.9 * inside)


@dataclass
class MaskFindings:
    """Volumes that look like masks, as patients are read.

    read: modality -> number of patients that were read.
    labelled: modality -> number of patients that have a label with a value other than 0, too.
    few: modality -> ids of patients with few whole values in it.
    repeats: modality -> ids of patients whose label it repeats.
    filling: ids of patients whose label covers nearly all that their images show.
    """

    read: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    few: dict[str, list[str]] = field(default_factory=dict)
    repeats: dict[str, list[str]] = field(default_factory=dict)
    filling: list[str] = field(default_factory=list)

    def add(self, patient_id: str, volumes: Mapping[str, NDArray[np.float32]], label: NDArray[np.uint8] | None) -> None:
        """Look at the volumes and the label of a patient."""
        self.read.update(volumes.keys())
        if label is not None and label.any():
            self.labelled.update(volumes.keys())
        for name, volume in volumes.items():
            if has_few_whole_values(volume):
                self.few.setdefault(name, []).append(patient_id)
            if repeats_label(volume, label):
                self.repeats.setdefault(name, []).append(patient_id)
        if label is not None and fills_image(label, list(volumes.values())):
            self.filling.append(patient_id)

    @property
    def masks(self) -> list[str]:
        """Modalities that are masks: of no usual name with few whole values, or like the label, in every patient."""
        few = [name for name, ids in self.few.items() if len(ids) == self.read[name] and not recognised(name)]
        alike = [name for name, ids in self.repeats.items() if len(ids) == self.labelled[name]]
        return list(dict.fromkeys([*few, *alike]))

    def lines(self) -> list[str]:
        """One line on each modality that is taken for a mask, or may be one, and on labels that fill the image."""
        lines = []
        for name, ids in self.few.items():
            repeated = len(self.repeats.get(name, []))
            alike = f"; in {repeated} of them its voxels are those of the label" if repeated else ""
            few = f"{name} has at most {MOST_VALUES} values, all whole, in {shown_ids(ids)}, as a mask has{alike}"
            label = "" if self.labelled[name] else " If it is the label, call its file <id>_seg.nii.gz."
            if name in self.masks:
                lines.append(f"{few}. It is taken for a mask, not for a modality.{label}")
            else:
                lines.append(f"{few}: is it an image? If not, leave it out of data.modalities.")
        for name, ids in self.repeats.items():
            if name not in self.few:
                same = f"{name} differs from 0 in exactly the voxels of the label in {shown_ids(ids)}"
                taken = "It is taken for a mask, not for a modality." if name in self.masks else "Is it an image?"
                lines.append(f"{same}. {taken}")
        if self.filling:
            whole = f"The label covers nearly all that the images show in {shown_ids(self.filling)}"
            lines.append(f"{whole}: is it a mask of the brain instead of a label?")
        return lines


def shown_ids(ids: list[str]) -> str:
    """Number of patients, and the first three."""
    return f"{len(ids)} patients ({listed(ids)})"
