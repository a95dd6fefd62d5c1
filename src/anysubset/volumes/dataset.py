"""Data set of volumes: from patient folders to training batches and whole volumes, for the segmentation task.

All files are read and checked before the first step.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from anysubset.batches import Batch, collate
from anysubset.datasets.dataset import Dataset, Unit, complete_only, named_files, place_of
from anysubset.datasets.folds import draw_folds
from anysubset.datasets.groups import groups_of, is_file, torn_note
from anysubset.datasets.missingness import read_missingness, restricted
from anysubset.datasets.scans import scans_of_patients, torn_scans
from anysubset.datasets.splits import Splits, check_splits, files_of_splits, find_splits, read_splits, splits_beside
from anysubset.errors import InputError, unknown
from anysubset.experiments.data_settings import MEDIAN, DataSettings
from anysubset.scenarios import Scenario, scored_scenarios
from anysubset.scoring.scores import ALL, Score, empty_references
from anysubset.system import processes
from anysubset.system.fingerprints import Fingerprints
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.cache import load_hashes, load_measurements, load_prepared, save_prepared
from anysubset.volumes.fingerprints import LABEL, hashes_of_files
from anysubset.volumes.geometry import by
from anysubset.volumes.image_headers import header_and_voxels
from anysubset.volumes.mask_recognition import repeats_label
from anysubset.volumes.measurements import Measurements, ranges_of
from anysubset.volumes.patient import Patient, folder_groups
from anysubset.volumes.patients import survey, which_label
from anysubset.volumes.preprocessing import Prepared, prepare
from anysubset.volumes.reading import PatientVolumes, read_patient
from anysubset.volumes.whole_volume import WholeVolume, samples_of
from anysubset.volumes.working_grid import check_reference, median_spacing, note_without_reference, resampling_of

PREPARATION = 4  # Version: increase it with every change of the preparation, so that cached patients are renewed.


class Volumes(Dataset):
    """Patients, their splits and the segmentation task.

    Args:
        data: settings of the data.
        task: modalities, regions and size of the training patch.
        report: called with one line of text before patients are read, and for every note.

    Raises:
        InputError: if there are no patients, or their missingness, groups or splits are faulty.
    """

    selection = ("dice", True)
    noun = "patients"
    task: Segmentation

    def __init__(
        self, data: DataSettings, task: Segmentation, report: Callable[[str], None] = lambda line: None
    ) -> None:
        self.task = task
        self.data = data
        self.root = data.root
        self.report = report
        self.in_files: dict[str, Scenario] = {}  # Modalities of the task in the files of each patient.
        self.patients = self.find_patients()
        self.groups = self.read_groups()
        self.splits = self.read_splits()
        check_reference(data.resample, task.modalities)
        if data.spacing == MEDIAN:
            self.data = replace(data, spacing=self.median_spacing())
        self.resampling = resampling_of(self.data)
        note = note_without_reference(list(self.patients.values()), self.data)
        if note is not None:
            self.report(note)
        # Prepared patients or the files that hold them, by id and reference modality (None for the default).
        self.ready: dict[tuple[str, str | None], Prepared | Path] = {}
        self.hashes: dict[str, dict[str, str]] = {}  # Of the patients that were read.
        self.measurements: dict[str, Measurements] = {}  # Likewise.
        self.copies_of_label: set[str] = set()  # Modalities that were noted.

    def decided_at(self, threshold: float | Mapping[str, float]) -> "Volumes":
        """A copy whose predictions are decided at other thresholds (`task.threshold`). It shares the patients."""
        other = copy(self)
        other.task = replace(self.task, threshold=threshold)
        return other

    def find_patients(self) -> dict[str, Patient]:
        """Find the patients, by id, without the modalities that `data.missingness` removes; labels stay."""
        surveyed = survey(Path(self.data.root))
        for line in surveyed.notes:
            self.report(f"note: {line}")
        patients = {patient.id: with_masks(patient, self.task.modalities) for patient in surveyed.patients}
        for patient_id, patient in patients.items():
            self.in_files[patient_id] = tuple(name for name in self.task.modalities if name in patient.sources)
        if self.data.missingness is None:
            return patients
        path = place_of(self.data.missingness, self.root)
        remaining = read_missingness(path)
        in_files = {patient_id: tuple(patient.sources) for patient_id, patient in patients.items()}
        try:
            present = restricted(in_files, remaining)
        except InputError as error:
            raise InputError(f"{path} and {self.data.root} do not go together: {error}") from None
        return {
            patient_id: replace(patient, sources={name: patient.sources[name] for name in present[patient_id]})
            for patient_id, patient in patients.items()
        }

    def read_groups(self) -> dict[str, str] | None:
        """The group of every patient by id, from `data.group`; None if the setting is not given.

        Raises InputError if the setting leaves a patient without a group.
        """
        setting = self.data.group
        if setting is None:
            return None
        return groups_of(self.patients, place_of(setting, self.root) if is_file(setting) else setting)

    def read_splits(self) -> dict[str, tuple[str, ...]]:
        """Ids by split, from `data.splits`, drawn folds or the split files in the data root; `all` has every patient.

        Raises:
            InputError: if a split names an unknown patient, there are fewer patients than folds, or
                `data.complete_only` leaves no training patient.
        """
        if self.data.folds is not None:
            from_files = self.drawn_fold(self.data.folds)
        elif self.data.splits is None:
            from_files = find_splits(Path(self.data.root)) or {}
        else:
            from_files = read_splits(place_of(self.data.splits, self.root))
        check_splits(from_files, self.patients)
        note = torn_note(from_files, self.groups) if self.groups is not None else self.torn_scans(from_files)
        if note is not None:
            self.report(note)
        splits = {**from_files, "all": tuple(self.patients)}
        if not self.data.complete_only:
            return splits
        present = {patient_id: patient.sources for patient_id, patient in self.patients.items()}
        return complete_only(splits, present, self.task.modalities, self.noun, self.report)

    def drawn_fold(self, count: int) -> Splits:
        """The splits of fold `data.fold` of `count` folds, of the patients with a label.

        They are stratified by the modalities in the files, so that `data.missingness` does not change the folds. Groups
        are kept together; without `data.group`, the scans of a patient going by their ids and folders.

        Raises:
            InputError: if `data.splits` is set, too, or there are fewer groups than folds.
        """
        if self.data.splits is not None:
            raise InputError("Set data.splits to read splits or data.folds to draw them, not both.")
        labelled = {patient_id: patient for patient_id, patient in self.patients.items() if patient.label is not None}
        groups, together = self.groups, " with groups kept together"
        if groups is None:
            groups, together = scans_of_patients(labelled, folder_groups(labelled.values())), " by patients"
        strata = {patient_id: "+".join(self.in_files[patient_id]) for patient_id in labelled}
        drawn = draw_folds(strata, count, groups)[self.data.fold]
        sizes = ", ".join(f"{name} {len(ids)}" for name, ids in drawn.items())
        without = len(self.patients) - len(labelled)
        unlabelled = f"; {without} without a label are in none" if without else ""
        self.report(f"Fold {self.data.fold} of {count}, drawn{together if groups else ''}: {sizes}{unlabelled}")
        return drawn

    def torn_scans(self, splits: Mapping[str, Collection[str]]) -> str | None:
        """One line on patients with scans in more than one split, going by ids and folders; None without such ones."""
        return torn_scans(splits, self.patients, folder_groups(self.patients.values()))

    def median_spacing(self) -> list[float]:
        """Median size in mm of the voxels of the training patients. Raises InputError without training patients."""
        patients = [self.patients[patient_id] for patient_id in self.ids("train")]
        spacing = median_spacing(patients, self.task.modalities, self.data.resample)
        self.report(f"Voxels of {by(spacing)} mm: the median of {len(patients)} training patients (data.spacing)")
        return spacing

    def check_modalities(self) -> None:
        """Raise InputError if a modality of the task occurs in no patient, usually a typo."""
        names = sorted({name for patient in self.patients.values() for name in patient.sources})
        for name in self.task.modalities:
            if name not in names:
                raise unknown("modality", name, names)

    def present(self, split: str) -> list[Scenario]:
        """The present modalities of each patient of a split, in the order of the task."""
        sources_of = [self.patients[patient_id].sources for patient_id in self.ids(split)]
        return [tuple(name for name in self.task.modalities if name in sources) for sources in sources_of]

    # ------------------------------------------------------------------------------------------ preparation

    def prepare(self, split: str) -> None:
        """Read, check and prepare the patients of a split that have not been prepared yet.

        Raises InputError for the first faulty file or patient.
        """
        unread = [patient_id for patient_id in self.ids(split) if (patient_id, None) not in self.ready]
        if unread:
            self.report(f"Reading {len(unread)} patients ({split}) from {self.data.root}")
        for patient_id in unread:
            self.prepared_or_cached(patient_id)

    def files(self, split: str) -> list[Path]:
        """The files of the volumes and labels of a split, and of its ids; see `Dataset.files`."""
        patients = [self.patients[patient_id] for patient_id in self.ids(split)]
        sources = [
            source
            for patient in patients
            for source in (*(patient.sources.get(name) for name in self.task.modalities), patient.label)
            if source is not None
        ]
        images = dict.fromkeys(file for source in sources for file in header_and_voxels(source.path))
        beside = splits_beside(Path(self.root)) if self.data.splits is None and self.data.folds is None else []
        return [*images, *(file for path in beside for file in files_of_splits(path)), *named_files(self.data)]

    def fingerprints(self, split: str, content: bool = True) -> Fingerprints:
        """Hashes of the volumes, labels and groups of a split.

        Patients that are not prepared are read for it, each by one of the processes (all-gather).
        """
        unread = [patient_id for patient_id in self.ids(split) if patient_id not in self.hashes]
        if content and unread:
            self.report(f"Reading the patients of split {split!r} for their fingerprints")
            modalities, labels = self.task.modalities, self.task.labels
            self.hashes |= processes.gathered(
                (patient_id, hashes_of_files(self.patients[patient_id], modalities, labels))
                for patient_id in processes.share(unread)
            )
        prints = {}
        for patient_id in self.ids(split):
            patient = self.patients[patient_id]
            if content:
                hashes = self.hashes[patient_id]
            else:
                present = [name for name in self.task.modalities if name in patient.sources]
                hashes = dict.fromkeys([*present, *([LABEL] if patient.label is not None else [])], "")
            group = {} if self.groups is None else {"(group)": self.groups[patient_id]}
            prints[patient_id] = {**hashes, **group}
        return prints

    def training_set(self) -> dict[str, Any]:
        """Ranges of volumes, voxels and intensities over the training patients; see `Dataset.training_set`."""
        return ranges_of([self.measurements[patient_id] for patient_id in self.ids("train")])

    def prepared_or_cached(self, patient_id: str, reference: str | None = None) -> Prepared | Path:
        """The prepared patient, or with a cache folder the file that holds it.

        Args:
            patient_id: of the patient.
            reference: modality in whose grid the patient is prepared; by default the first one that is present.

        Raises:
            InputError: if the patient has no label, or a file is faulty.
        """
        if (patient_id, reference) not in self.ready:
            ready, self.hashes[patient_id] = self.read(self.patients[patient_id], reference)
            self.ready[patient_id, reference] = ready
            if reference is None:
                measured = load_measurements(ready) if isinstance(ready, Path) else ready.measurements
                self.measurements[patient_id] = measured
        return self.ready[patient_id, reference]

    def read(self, patient: Patient, reference: str | None) -> tuple[Prepared | Path, dict[str, str]]:
        """Read and prepare a patient; into a file, if there is a cache folder. Returns also the hashes of its files."""
        if patient.faults:
            raise InputError(patient.faults[0])
        if patient.label is None:
            which = f" It has several masks: {which_label(patient)}" if patient.candidates else ""
            if patient.masks and not which:
                which = (
                    f" Its masks are taken for no label: {', '.join(patient.masks)}. Call the label <id>_seg.nii.gz."
                )
            raise InputError(f"Patient {patient.id!r} has no label; training and evaluation need one.{which}")
        path = self.cache_file(patient, reference)
        if path is not None and path.is_file():
            return path, load_hashes(path)
        volumes = read_patient(patient, self.task.modalities, self.task.labels, self.resampling, reference)
        self.note_copies_of_label(volumes)
        prepared = prepare(volumes, self.task)
        if path is None:
            return prepared, volumes.hashes
        path.parent.mkdir(parents=True, exist_ok=True)
        save_prepared(prepared, path, volumes.hashes)
        return path, volumes.hashes

    def note_copies_of_label(self, volumes: PatientVolumes) -> None:
        """Note a modality that is nonzero exactly where the label is, at the first patient."""
        for name, volume in volumes.volumes.items():
            if name not in self.copies_of_label and repeats_label(volume, volumes.label):
                self.copies_of_label.add(name)
                self.report(
                    f"note: {name} of patient {volumes.id!r} differs from 0 in exactly the voxels of the label. Where "
                    "it is made from the label, it is missing in use: leave it out of data.modalities"
                )

    def prepared(self, patient_id: str, reference: str | None = None) -> Prepared:
        """Prepared patient; see `prepared_or_cached`."""
        ready = self.prepared_or_cached(patient_id, reference)
        return load_prepared(ready) if isinstance(ready, Path) else ready

    def cache_file(self, patient: Patient, reference: str | None) -> Path | None:
        """File in the cache folder for a prepared patient; None without such a folder, or if a file does not exist."""
        sources = [*patient.sources.values(), *([patient.label] if patient.label is not None else [])]
        if self.data.cache == "memory" or not all(source.path.exists() for source in sources):
            return None
        return Path(self.data.cache) / f"{patient.id}-{self.cache_key(patient, reference)}.safetensors"

    def cache_key(self, patient: Patient, reference: str | None = None) -> str:
        """Hash of everything on which a prepared patient depends: files, task, grid, normalisation, and its version.

        Files are recognised by their state, not by reading them. Sizes and times of modification may be equal where two
        patients were exchanged; inode and time of change, which nobody can set, are not.
        """
        sources = [*patient.sources.items(), ("label", patient.label)]
        facts = [PREPARATION, self.task.modalities, list(self.task.regions.items()), self.task.skull_stripped]
        facts += [self.resampling, reference, self.task.normalise, self.task.clip]
        for name, source in sources:
            if source is not None:
                state = source.path.stat()
                facts += [name, str(source.path.resolve()), source.channel, state.st_mtime_ns, state.st_size]
                facts += [state.st_ino, state.st_ctime_ns]
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    # --------------------------------------------------------------------------------------------- training

    def training_batches(
        self, split: str, batch: int, seed: int, first: int, last: int, parts: int = 1, unit: Unit = "sample"
    ) -> Iterator[Batch]:
        """Batches of patches for the steps from `first` up to, but not including, `last`.

        Args:
            split: patients to draw from.
            batch: patches in a step, over all processes; a process gets its share.
            seed: of the order of patients and of the augmentation.
            first: first step, from 0.
            last: step after the last one.
            parts: micro-batches in which a process gets its share, one after the other.
        """
        # Only here, since loading MONAI takes seconds.
        from anysubset.volumes.training_patches import TrainingPatches

        check_unit(unit)
        processes.check_shares(batch, parts)
        self.prepare(split)
        dataset = TrainingPatches(self.prepared, self.ids(split), self.task.patch, self.data.augment, seed)
        shares = [list(processes.share(dataset.keys(step * batch, (step + 1) * batch))) for step in range(first, last)]
        yield from DataLoader(
            dataset,
            batch_sampler=[share[part::parts] for share in shares for part in range(parts)],
            collate_fn=collate,
            num_workers=self.data.workers,
            # Without it the loader draws from torch's global generator at every start, so a resumed run would differ.
            generator=torch.Generator(),
        )

    # ------------------------------------------------------------------------------------------- evaluation

    def samples(
        self,
        split: str,
        asked: Sequence[Scenario] | None = None,
        ids: Iterable[str] | None = None,
        unit: Unit = "sample",
    ) -> Iterator[WholeVolume]:
        """Yield whole patients with the scenarios that they are eligible for.

        The input of a scenario is cropped to the foreground of its own modalities, and normalised over it where the
        normalisation is joint, as if the patient had no others. Therefore a patient is yielded once for every distinct
        foreground, and only once if all its modalities have the same brain mask. If its files have different grids, a
        scenario is prepared in the grid of its own reference.

        Args:
            split: patients to yield.
            asked: scenarios; by default all.
            ids: patients of the split to yield; by default all.
        """
        check_unit(unit)
        self.prepare(split)
        for patient_id in self.ids(split) if ids is None else ids:
            whole = self.prepared(patient_id)
            by_reference: dict[str | None, list[Scenario]] = {}
            for scenario in asked or scored_scenarios(self.task.modalities):
                if set(scenario) <= set(whole.modalities):
                    by_reference.setdefault(whole.reference_of(scenario), []).append(scenario)
            for reference, scenarios in by_reference.items():
                is_whole = reference == whole.reference_of(whole.modalities)
                patient = whole if is_whole else self.prepared(patient_id, reference)
                yield from samples_of(patient, scenarios, self.task)

    def over_set(self, scores: Sequence[Score]) -> list[Score]:
        """Number of empty references by scenario and region (`empty_references`), where volumes were scored."""
        by_scenario: dict[Scenario, list[Score]] = {}
        for score in scores:
            by_scenario.setdefault(score.scenario, []).append(score)
        return [
            Score(scenario, ALL, "empty_references", region, float(count))
            for scenario, of_scenario in by_scenario.items()
            for region, count in empty_references(of_scenario).items()
        ]


def with_masks(patient: Patient, modalities: Scenario) -> Patient:
    """The patient with the masks that the settings name as modalities, such as `brain_mask`."""
    masks = {name: patient.masks[name] for name in modalities if name in patient.masks and name not in patient.sources}
    return replace(patient, sources={**patient.sources, **masks}) if masks else patient


def check_unit(unit: Unit) -> None:
    """Raise InputError unless the unit is `sample`, since volumes are neither drawn nor scored in groups."""
    if unit != "sample":
        raise InputError("The method needs whole groups of samples, which are for tables; volumes come one by one.")
