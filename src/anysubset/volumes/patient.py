"""The files of a patient, by modality. A missing modality has no key."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from anysubset.datasets.ids import composed
from anysubset.volumes.spellings import LABEL, mask_kind, modalities_in_order, modality_name


@dataclass(frozen=True)
class Source:
    """File of a volume, and its channel (from 0) if the file is 4-D."""

    path: Path
    channel: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.channel is None else f"Channel {self.channel} of {self.path}"


@dataclass(frozen=True)
class Patient:
    """Files of one patient, by modality; a missing modality has no key in `sources`.

    label: the mask to train on, if there is one.
    masks: all masks by the name in their files, the label among them.
    faults: lines on what is there and cannot be read, such as a link whose target does not exist.
    group: the patient of a scan, where its folder says so.
    """

    id: str
    sources: dict[str, Source]
    label: Source | None
    masks: dict[str, Source] = field(default_factory=dict)
    faults: tuple[str, ...] = ()
    group: str | None = None

    def __post_init__(self) -> None:
        # Names of files may be decomposed, those in files of splits are not.
        object.__setattr__(self, "id", composed(self.id))

    @property
    def label_name(self) -> str | None:
        """Name of the label in its file, such as `seg` or `tumor_segmentation`; None without a label."""
        return next((name for name, mask in self.masks.items() if mask == self.label), None)

    @property
    def candidates(self) -> list[str]:
        """Masks that may be the label, of a patient without one."""
        return [name for name in self.masks if mask_kind(name) != "other"] if self.label is None else []


def folder_groups(patients: Iterable[Patient]) -> dict[str, str]:
    """Patient by id, of the scans whose folders say whose they are."""
    return {patient.id: patient.group for patient in patients if patient.group is not None}


def assemble(
    patient_id: str, named: Iterable[tuple[str, Source]], faults: Iterable[str] = (), group: str | None = None
) -> Patient:
    """Patient from pairs of a name, in any spelling, and its source.

    Masks are no modalities. The label is the mask called `seg`, `segm` or `label`, or else the only one that may be a
    label. A patient with several such masks has no label. A name that occurs twice, or has letters that a modality
    cannot have, is a fault of the patient.
    """
    sources: dict[str, Source] = {}
    masks: dict[str, Source] = {}
    lines = list(faults)
    twice = []
    for spelled, source in ((composed(name), source) for name, source in named):
        kind = mask_kind(spelled)
        target = masks if kind else sources
        name = LABEL if kind == "label" else re.sub("[.+]", "_", spelled.lower()) if kind else modality_name(spelled)
        # "+" joins the names of a scenario, and torch does not allow a dot in a module's name.
        if not re.fullmatch(r"[\w -]+", name):
            lines.append(f"{source} gives the modality name {name!r}: use letters, digits, _ and - only.")
        elif name in target:
            twice.append(f"Patient {patient_id!r} has {name} twice: {target[name]} and {source}; keep one of them.")
        else:
            target[name] = source
    if len(twice) > 1:
        lines.append(
            f"{twice[0]} {len(twice) - 1} more of its files have the name of another: if they are of several patients, "
            "make a folder for each, or a CSV manifest."
        )
    else:
        lines += twice
    lesions = [name for name in masks if mask_kind(name) != "other"]
    label = masks.get(LABEL) or (masks[lesions[0]] if len(lesions) == 1 else None)
    ordered = {name: sources[name] for name in modalities_in_order(sources)}
    return Patient(patient_id, ordered, label, masks, tuple(lines), group)
