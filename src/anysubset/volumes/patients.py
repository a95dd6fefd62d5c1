"""Find patients and their files on disk, in the usual layouts.

A missing modality has no key. File names, manifests and `dataset.json` are read, but no images.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anysubset.errors import InputError
from anysubset.volumes.apart import folders_apart, folders_of_contrasts, from_folders_apart, from_folders_of_contrasts
from anysubset.volumes.bids import bids_subjects, from_bids
from anysubset.volumes.dicom import dicom_line
from anysubset.volumes.file_names import OTHER_VOLUMES, ending, first_file
from anysubset.volumes.folders import from_folders
from anysubset.volumes.manifest import SHEETS, from_manifest
from anysubset.volumes.nnunet import (
    from_nnunet,
    nnunet_folder,
    refuse_files_of_channels,
    refuse_folder_of_data_sets,
)
from anysubset.volumes.patient import Patient
from anysubset.volumes.spellings import BRATS, LABEL, modalities_in_order, recognised, unnumbered, unprocessed


@dataclass(frozen=True)
class Survey:
    """What lies at a path.

    layout: in words.
    patients: sorted by id.
    passed_over: lines on files and folders that are no part of a patient.
    mask_lines: lines on labels of unusual names, on masks that are no modalities, and on contrasts of several kinds.
    """

    layout: str
    patients: list[Patient]
    passed_over: list[str]
    mask_lines: list[str]

    @property
    def notes(self) -> list[str]:
        """All lines."""
        return [*self.passed_over, *self.mask_lines]


def find_patients(root: Path) -> list[Patient]:
    """Find the patients under a path, sorted by id. See `survey`, which also says what was passed over."""
    return survey(root).patients


def survey(root: Path) -> Survey:
    """Find the patients under a path, and what else lies there.

    Args:
        root: folder of patient folders (one level down, or two as in HGG/ and LGG/ of BraTS), folder of one patient,
            Medical Decathlon folder, or CSV manifest.

    Raises:
        InputError: if the path does not exist or is another kind of file, if it holds no patients, or if two patients
            have the same id.
    """
    layout, patients, lines = listed(root)
    dicom = dicom_line(root) if root.is_dir() else None
    if not patients and dicom is not None:
        raise InputError(dicom)
    if not patients:
        raise InputError(
            f"{root} holds no patients: these are folders <id>/ with files <id>_<modality>.nii.gz, rows of a CSV "
            f"manifest, or files in imagesTr/ of a Medical Decathlon folder.{too_deep(root)}"
        )
    patients = sorted(patients, key=lambda patient: patient.id)
    if layout != "manifest":  # Its columns are named by hand.
        patients, numbered = without_numbers(patients)
        lines += numbered
    patients = with_single_variants(patients)
    for patient, following in itertools.pairwise(patients):
        if patient.id == following.id:
            if layout == "manifest":
                raise InputError(
                    f"{root} has two rows with the id {patient.id!r}: ids must be unique, a row for each patient."
                )
            raise InputError(
                f"Two patients under {root} have the id {patient.id!r}: ids must be unique. Rename a folder, give a "
                "folder nearer to one of them, or write a CSV manifest with ids of your own."
            )
    lines += [dicom] if dicom is not None else []
    if len(patients) == 1 and len(patients[0].sources) > 1 and not any(map(recognised, patients[0].sources)):
        names = ", ".join(list(patients[0].sources)[:3])
        lines.append(f"{names} are taken for modalities of one patient. If they are patients, write a CSV manifest.")
    return Survey(layout, patients, lines, [*mask_notes(patients), *variant_notes(patients)])


def too_deep(root: Path) -> str:
    """Words on the first image or other volume below a folder that holds no patients; empty if there is none."""
    first = first_file(root, ending)
    if first is not None:
        return f" Images such as {first} lie too deep: give a folder nearer to them."
    first = first_file(root, lambda path: ending(path, OTHER_VOLUMES))
    return "" if first is None else f" {first} is of a kind that is not read: convert such files to .nii.gz."


def listed(root: Path) -> tuple[str, list[Patient], list[str]]:
    """Layout, patients and lines on what was passed over, by the reader of the layout."""
    if root.is_dir():
        return listed_folder(root)
    if root.is_file() and root.suffix.lower() in SHEETS:
        return "manifest", *from_manifest(root)
    if root.exists():
        raise InputError(f"{root} is a file: give a folder of patients, one patient's folder, or a CSV manifest.")
    raise InputError(f"{root} does not exist.")


def listed_folder(root: Path) -> tuple[str, list[Patient], list[str]]:
    """As `listed`, of a folder."""
    nnunet = nnunet_folder(root)
    if nnunet is not None:
        return from_nnunet(*nnunet)
    refuse_folder_of_data_sets(root)
    refuse_files_of_channels(root)
    bids = bids_subjects(root)
    if bids is not None:
        return "BIDS", *from_bids(*bids)
    apart = folders_apart(root)
    if apart is not None:
        return "folders of images and of labels", *from_folders_apart(*apart)
    contrasts = folders_of_contrasts(root)
    if contrasts:
        return "a folder per contrast", from_folders_of_contrasts(contrasts), []
    return "folders", *from_folders(root)


def without_numbers(patients: Sequence[Patient]) -> tuple[list[Patient], list[str]]:
    """Patients whose modalities lack numbers of series and dates (`3_t1_mprage`), and a line that says so.

    A number stays where a patient has two files of a contrast that differ in it.
    """
    counts = [Counter(map(unnumbered, patient.sources)) for patient in patients]
    several = {name for count in counts for name, times in count.items() if times > 1}
    plain = {name: unnumbered(name) for patient in patients for name in patient.sources}
    plain = {name: name if other in several else other for name, other in plain.items()}
    numbered = next((name for name, other in plain.items() if name != other), None)
    if numbered is None:
        return list(patients), []
    line = f"Numbers in the names of files are left out: {numbered} is read as {plain[numbered]}."
    return [renamed(patient, plain) for patient in patients], [line]


def renamed(patient: Patient, names: Mapping[str, str]) -> Patient:
    """The patient with other names of modalities, in the usual order."""
    sources = {names[name]: source for name, source in patient.sources.items()}
    return replace(patient, sources={name: sources[name] for name in modalities_in_order(sources)})


def with_single_variants(patients: Sequence[Patient]) -> list[Patient]:
    """Call a processed contrast by its plain name (`t1_bias` becomes `t1`) if no patient has another kind of it."""
    names = {name for patient in patients for name in patient.sources}
    kinds = Counter(unprocessed(name) for name in names)
    plain = {name: unprocessed(name) if kinds[unprocessed(name)] == 1 else name for name in names}
    return [renamed(patient, plain) for patient in patients]


def variant_notes(patients: Sequence[Patient]) -> list[str]:
    """A line on each contrast that patients have in several processed kinds."""
    names = sorted({name for patient in patients for name in patient.sources})
    lines = []
    for base in BRATS:
        kinds = [name for name in names if unprocessed(name) == base]
        if len(kinds) > 1:
            plain = f" (inspect --write names {base})" if base in kinds else ""
            shown = " and ".join(kinds)
            lines.append(f"{base} comes in {len(kinds)} kinds, {shown}: name one in data.modalities{plain}.")
    return lines


def mask_notes(patients: Sequence[Patient]) -> list[str]:
    """Lines on labels of unusual names, on masks that are no modalities, and on patients with several masks."""
    labels = Counter(name for patient in patients if (name := patient.label_name) not in (None, LABEL))
    lines = [f"The label is taken from the files called {name!r} ({count} patients)." for name, count in labels.items()]
    unused = Counter(name for patient in patients for name in patient.masks if name != patient.label_name)
    if unused:
        counts = ", ".join(f"{name} ({count} patients)" for name, count in unused.most_common())
        lines.append(f"Masks that are neither modalities nor the label: {counts}.")
    unclear = [patient for patient in patients if len(patient.candidates) > 1]
    if unclear:
        lines.append(f"{len(unclear)} patients have no label, but several masks: {which_label(unclear[0])}")
    return lines


def which_label(patient: Patient) -> str:
    """One line that asks which of a patient's masks is the label."""
    names = " or ".join(patient.candidates)
    return (
        f"which one is the label of {patient.id!r}, {names}? Call its file <id>_seg.nii.gz, or name it in the column "
        "'label' of a CSV manifest; regions of one label go into one file, with a value for each."
    )
