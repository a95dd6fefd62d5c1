"""Data set of volumes: from patient folders to training batches and whole volumes, for the segmentation task.

All files are read and checked before the first step. The random numbers of a training patch depend on the seed and on
the number of the patch in the run, not on earlier draws: a resumed run and one with more workers see the same patches.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from anysubset.batches import Batch, collate
from anysubset.datasets.dataset import Dataset, Sample, Unit, complete_only, place_of
from anysubset.datasets.groups import groups_of, is_file, torn_note
from anysubset.datasets.missingness import read_missingness, restricted
from anysubset.datasets.splits import check_splits, find_splits, read_splits
from anysubset.errors import InputError, unknown
from anysubset.experiments.settings import DataSettings, TaskSettings
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.scoring.scores import Score
from anysubset.scoring.segmentation_metrics import dice, hd95, voxel_calibration_error
from anysubset.system import processes, tensor_file
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.augmentation import patches
from anysubset.volumes.patients import Patient, find_patients
from anysubset.volumes.preprocessing import Box, Prepared, around, paste, prepare
from anysubset.volumes.reading import read_patient

PREPARATION = 1  # Version: increase it with every change of the preparation, so that cached patients are renewed.


@dataclass(frozen=True)
class VolumeSet:
    """A public data set: summary, modalities in the order of tables, and regions, outer ones first."""

    summary: str
    modalities: tuple[str, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    skull_stripped: bool = True

    @property
    def asked(self) -> str:
        """Regions and their labels, in one line."""
        return "  ".join(f"{region} {list(labels)}" for region, labels in self.regions)


@dataclass(frozen=True)
class WholeVolume(Sample):
    """One whole patient, with the scenarios whose modalities have the same foreground.

    inputs: (1, 1, x, y, z) for every modality, cropped to `box`, that foreground.
    target: (regions, X, Y, Z) bool, not cropped.
    spacing: size of a voxel in mm.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    scenarios: list[Scenario]
    target: Tensor
    box: Box
    spacing: tuple[float, ...]
    task: Segmentation

    def whole(self, logits: Tensor) -> Tensor:
        """Prediction on the whole volume: logits (1, regions, x, y, z) -> (regions, X, Y, Z) bool."""
        return paste(self.task.prediction(logits)[0], self.box, self.target.shape[1:])

    def scores(self, scenario: Scenario, logits: Tensor, thorough: bool) -> list[Score]:
        """Dice of the prediction on the whole volume, by region.

        `thorough` adds `hd95` in mm, which takes longer than the network, and `ece`, the calibration error inside the
        box, since nothing is predicted outside.
        """
        predicted = self.whole(logits)
        values = {"dice": dice(predicted, self.target)}
        if thorough:
            values["hd95"] = hd95(predicted, self.target, self.spacing)
            values["ece"] = voxel_calibration_error(logits[0].cpu().float().sigmoid(), self.box.of(self.target))
        return [
            Score(scenario, self.ids[0], metric, region, value)
            for metric, numbers in values.items()
            for region, value in zip(self.task.regions, numbers.tolist(), strict=True)
        ]


class Volumes(Dataset):
    """Patients, their splits and the segmentation task.

    Args:
        data: settings of the data.
        task: modalities, regions and size of the training patch.
        report: called with one line before patients are read, and for every note.
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
        self.patients = self.find_patients()
        self.groups = self.read_groups()
        self.splits = self.read_splits()
        self.ready: dict[str, Prepared | Path] = {}

    def find_patients(self) -> dict[str, Patient]:
        """Patients by id, without the modalities that `data.missingness` removes; labels are not affected."""
        patients = {patient.id: patient for patient in find_patients(Path(self.data.root))}
        if self.data.missingness is None:
            return patients
        path = place_of(self.data.missingness, self.root)
        stay = read_missingness(path)
        try:
            present = restricted({patient_id: tuple(patient.sources) for patient_id, patient in patients.items()}, stay)
        except InputError as error:
            raise InputError(f"{path} and {self.data.root} do not go together: {error}") from None
        return {
            patient_id: replace(patient, sources={name: patient.sources[name] for name in present[patient_id]})
            for patient_id, patient in patients.items()
        }

    def read_groups(self) -> dict[str, str] | None:
        """Group of every patient, by id (`data.group`); None without the setting.

        Raises InputError if the setting leaves a patient without a group.
        """
        setting = self.data.group
        if setting is None:
            return None
        return groups_of(self.patients, place_of(setting, self.root) if is_file(setting) else setting)

    def read_splits(self) -> dict[str, tuple[str, ...]]:
        """Ids by split, from `data.splits` or the files beside the patients; every patient is in the split `all`.

        Raises:
            InputError: if a split names an unknown patient, or `data.complete_only` leaves no training patient.
        """
        if self.data.splits is None:
            from_files = find_splits(Path(self.data.root)) or {}
        else:
            from_files = read_splits(place_of(self.data.splits, self.root))
        check_splits(from_files, self.patients)
        note = torn_note(from_files, self.groups) if self.groups is not None else None
        if note is not None:
            self.report(note)
        splits = {**from_files, "all": tuple(self.patients)}
        if not self.data.complete_only:
            return splits
        present = {patient_id: patient.sources for patient_id, patient in self.patients.items()}
        return complete_only(splits, present, self.task.modalities, self.noun, self.report)

    def check_modalities(self) -> None:
        """Raise InputError if a modality of the task occurs in no patient, usually a typo."""
        names = sorted({name for patient in self.patients.values() for name in patient.sources})
        for name in self.task.modalities:
            if name not in names:
                raise unknown("modality", name, names)

    def present(self, split: str) -> list[Scenario]:
        """Modalities of the task that every patient of a split has files of."""
        sources_of = [self.patients[patient_id].sources for patient_id in self.ids(split)]
        return [tuple(name for name in self.task.modalities if name in sources) for sources in sources_of]

    # ------------------------------------------------------------------------------------------ preparation

    def prepare(self, split: str) -> None:
        """Read, check and prepare the patients of a split that are not ready yet.

        Raises InputError for the first faulty file or patient.
        """
        unread = [patient_id for patient_id in self.ids(split) if patient_id not in self.ready]
        if unread:
            self.report(f"Reading {len(unread)} patients ({split}) from {self.data.root}")
        for patient_id in unread:
            self.ready[patient_id] = self.prepared_or_cached(self.patients[patient_id])

    def prepared_or_cached(self, patient: Patient) -> Prepared | Path:
        """The prepared patient, or with a cache folder the file that holds it.

        Raises InputError if the patient has no label, or a file is faulty.
        """
        if patient.label is None:
            raise InputError(f"Patient {patient.id!r} has no label; training and evaluation need one.")
        if self.data.cache == "memory":
            return prepare(read_patient(patient, self.task.modalities, self.task.labels), self.task)
        path = Path(self.data.cache) / f"{patient.id}-{self.fingerprint(patient)}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_prepared(prepare(read_patient(patient, self.task.modalities, self.task.labels), self.task), path)
        return path

    def prepared(self, patient_id: str) -> Prepared:
        """Prepared patient; `prepare` must have been called for a split that has it."""
        ready = self.ready[patient_id]
        return load_prepared(ready) if isinstance(ready, Path) else ready

    def fingerprint(self, patient: Patient) -> str:
        """Hash of everything that decides a prepared patient: files, task, and version of the preparation."""
        sources = [*patient.sources.items(), ("label", patient.label)]
        facts = [PREPARATION, self.task.modalities, list(self.task.regions.items()), self.task.skull_stripped]
        for name, source in sources:
            if source is not None:
                state = source.path.stat()
                facts += [name, str(source.path.resolve()), source.channel, state.st_mtime_ns, state.st_size]
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
        check_unit(unit)
        processes.check_shares(batch, parts)
        self.prepare(split)
        dataset = Patches(self, split, seed)
        shares = [list(processes.share(dataset.keys(step * batch, (step + 1) * batch))) for step in range(first, last)]
        yield from DataLoader(
            dataset,
            batch_sampler=[share[part::parts] for share in shares for part in range(parts)],
            collate_fn=collate,
            num_workers=self.data.workers,
            # Its own generator: otherwise it draws from torch's global one, and once more in a resumed run.
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
        """Whole patients, with the scenarios that they are eligible for.

        The input of a scenario is cropped to the foreground of its own modalities, as if the patient had no others. A
        patient is therefore yielded once for every foreground: once in all if its modalities have the same brain mask.

        Args:
            split: patients to yield.
            asked: scenarios; by default all.
            ids: patients of the split to yield; by default all.
        """
        check_unit(unit)
        self.prepare(split)
        for patient_id in self.ids(split) if ids is None else ids:
            patient = self.prepared(patient_id)
            boxes: dict[Box, list[Scenario]] = {}
            for scenario in asked or all_scenarios(self.task.modalities):
                if set(scenario) <= set(patient.modalities):
                    box = around(patient.boxes[name] for name in scenario)
                    boxes.setdefault(box, []).append(scenario)
            for box, scenarios in boxes.items():
                yield sample(patient, box, scenarios, self.task)


def segmentation_task(data: DataSettings, task: TaskSettings, public: VolumeSet) -> Segmentation:
    """Task of the settings; modalities and regions that they do not name are those of the public data set.

    Raises InputError if neither names them, or the task refuses a setting.
    """
    regions = dict(public.regions)
    if data.regions is not None:
        regions = {name: tuple(labels) for name, labels in data.regions.items()}
    modalities = public.modalities if data.modalities is None else tuple(data.modalities)
    if not modalities or not regions:
        raise InputError(
            f"Dataset {data.name!r} needs data.modalities and data.regions; `anysubset inspect {data.root}` shows them."
        )
    return Segmentation(
        modalities=modalities,
        regions=regions,
        skull_stripped=public.skull_stripped if data.skull_stripped is None else data.skull_stripped,
        patch=tuple(task.patch),
        pool=task.pool,
        cross_entropy=task.cross_entropy,
        overlap=task.overlap,
        window=task.window,
        mirror=task.mirror,
    )


def sample(patient: Prepared, box: Box, scenarios: list[Scenario], task: Segmentation) -> WholeVolume:
    """Crop the modalities of some scenarios to a box within the patient's foreground."""
    if patient.target is None:
        raise InputError(f"Patient {patient.id!r} has no label.")
    needed = {name for scenario in scenarios for name in scenario}
    image = box.within(patient.box).of(patient.image)
    inputs = {
        name: channel[None, None] for name, channel in zip(patient.modalities, image, strict=True) if name in needed
    }
    return WholeVolume((patient.id,), inputs, scenarios, patient.target, box, patient.spacing, task)


Key = tuple[int, int]
Item = tuple[dict[str, Tensor], Tensor, str]


class Patches(TorchDataset[Item]):
    """Augmented patches of the patients of a split; a key is (index of the patient, number of the patch)."""

    def __init__(self, volumes: Volumes, split: str, seed: int) -> None:
        self.volumes = volumes
        self.ids = volumes.ids(split)
        self.seed = seed
        self.share = volumes.data.augment.foreground
        self.anywhere = patches(volumes.task.patch, volumes.data.augment, centred=False)
        self.centred = patches(volumes.task.patch, volumes.data.augment, centred=True)

    def keys(self, first: int, last: int) -> list[Key]:
        """Keys of patches `first` up to, but not including, `last`: every patient once an epoch, in random order."""
        keys = []
        for number in range(first, last):
            epoch, position = divmod(number, len(self.ids))
            order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.ids))
            keys.append((int(order[position]), number))
        return keys

    def __getitem__(self, key: Key) -> Item:
        index, number = key
        patient = self.volumes.prepared(self.ids[index])
        if patient.target is None:
            raise InputError(f"Patient {patient.id!r} has no label.")
        whole = {"image": patient.image, "target": patient.box.of(patient.target).to(torch.uint8)}
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


# ------------------------------------------------------------------------------------------- cache on disk


def save_prepared(patient: Prepared, path: Path) -> None:
    """Write a prepared patient to a file, whole or not at all."""
    tensors = {"image": patient.image}
    if patient.target is not None:
        tensors["target"] = patient.target
    facts = {
        "id": patient.id,
        "modalities": patient.modalities,
        "boxes": {name: [box.start, box.stop] for name, box in patient.boxes.items()},
        "shape": patient.shape,
        "spacing": patient.spacing,
    }
    tensor_file.save(path, tensors, facts)


def load_prepared(path: Path) -> Prepared:
    """Read a patient that `save_prepared` wrote."""
    tensors, facts = tensor_file.load(path)
    return Prepared(
        id=facts["id"],
        modalities=tuple(facts["modalities"]),
        image=tensors["image"],
        target=tensors.get("target"),
        boxes={name: Box(tuple(start), tuple(stop)) for name, (start, stop) in facts["boxes"].items()},
        shape=tuple(facts["shape"]),
        spacing=tuple(facts["spacing"]),
    )


def check_unit(unit: Unit) -> None:
    """Raise InputError if whole groups are asked for, which volumes are not drawn or scored in."""
    if unit != "sample":
        raise InputError("The method needs whole groups of samples, which are for tables; volumes come one by one.")
