"""Volumes: patient folders to training batches and whole samples, for the segmentation task.

Everything is read and checked before the first step. Whatever is drawn for a training patch depends on the seed and
on its place in the run alone, not on what was drawn before: a resumed run, and one with more workers, sees the same.
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
from anysubset.experiments.settings import DataSettings, ModelSettings
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.scoring.scores import Score
from anysubset.scoring.segmentation_metrics import dice, hd95, voxel_calibration_error
from anysubset.system import processes, tensor_file
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.augmentation import patches
from anysubset.volumes.patients import Patient, find_patients
from anysubset.volumes.preprocessing import Box, Prepared, around, paste, prepare
from anysubset.volumes.reading import read_patient

WIDTH = 0.5  # The paper's.
PREPARATION = 1  # Raised whenever preparation changes, so that kept patients are prepared again.


@dataclass(frozen=True)
class VolumeSet:
    """A public dataset: what it is, its modalities in the order of the table, and its regions, outer ones first."""

    summary: str
    modalities: tuple[str, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    skull_stripped: bool = True

    @property
    def asked(self) -> str:
        """What its task asks for, in a line: regions, and the labels in each."""
        return "  ".join(f"{region} {list(labels)}" for region, labels in self.regions)


@dataclass(frozen=True)
class WholeVolume(Sample):
    """One whole patient, as seen in some scenarios.

    inputs: (1, 1, x, y, z) a modality, cropped to `box`, the foreground of what these scenarios see.
    target: (regions, X, Y, Z) bool, of the whole volume.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    scenarios: list[Scenario]
    target: Tensor
    box: Box
    spacing: tuple[float, ...]
    task: Segmentation

    def whole(self, answer: Tensor) -> Tensor:
        """(1, regions, x, y, z) logits -> (regions, X, Y, Z) bool."""
        return paste(self.task.prediction(answer)[0], self.box, self.target.shape[1:])

    def scores(self, scenario: Scenario, answer: Tensor, thorough: bool) -> list[Score]:
        """Hard Dice on the whole volume.

        `thorough` adds HD95 in mm, which takes longer than the network does, and `ece`, the calibration error within
        the box: outside nothing was asked.
        """
        predicted = self.whole(answer)
        values = {"dice": dice(predicted, self.target)}
        if thorough:
            values["hd95"] = hd95(predicted, self.target, self.spacing)
            values["ece"] = voxel_calibration_error(answer[0].cpu().float().sigmoid(), self.box.of(self.target))
        return [
            Score(scenario, self.ids[0], metric, region, value)
            for metric, numbers in values.items()
            for region, value in zip(self.task.regions, numbers.tolist(), strict=True)
        ]


class Volumes(Dataset):
    """Patients, their splits, and the task that they set.

    Args:
        data: where the patients are.
        task: their modalities and regions, and the patch that a network trains on.
        report: told in one line what is being read.
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
        """Patients by id, with the files that the missingness file leaves them; a label always stays."""
        patients = {patient.id: patient for patient in find_patients(Path(self.data.root))}
        if self.data.missingness is None:
            return patients
        path = place_of(self.data.missingness, self.root)
        stay = read_missingness(path)
        try:
            left = restricted({patient_id: tuple(patient.sources) for patient_id, patient in patients.items()}, stay)
        except InputError as error:
            raise InputError(f"{path} and {self.data.root} do not go together: {error}") from None
        return {
            patient_id: replace(patient, sources={name: patient.sources[name] for name in left[patient_id]})
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
        """Ids by split. Without a file of splits every patient is in the split `all`.

        Raises:
            InputError: if they name what is not there, or no training patient is complete who has to be.
        """
        if self.data.splits is None:
            found = find_splits(Path(self.data.root))
        else:
            found = read_splits(place_of(self.data.splits, self.root))
        if found is not None:
            check_splits(found, self.patients)
            note = torn_note(found, self.groups) if self.groups is not None else None
            if note is not None:
                self.report(note)
        splits = {**(found or {}), "all": tuple(self.patients)}
        if not self.data.complete_only:
            return splits
        present = {patient_id: patient.sources for patient_id, patient in self.patients.items()}
        return complete_only(splits, present, self.task.modalities, self.noun, self.report)

    def check_modalities(self) -> None:
        """For training: each of the task's modalities is somebody's, or it is misspelt.

        Raises:
            InputError: if nobody has one, with the nearest that somebody has.
        """
        names = sorted({name for patient in self.patients.values() for name in patient.sources})
        for name in self.task.modalities:
            if name not in names:
                raise unknown("modality", name, names)

    def present(self, split: str) -> list[Scenario]:
        """For each patient of a split, the contrasts that there are files of."""
        found = [self.patients[patient_id].sources for patient_id in self.ids(split)]
        return [tuple(name for name in self.task.modalities if name in sources) for sources in found]

    # ------------------------------------------------------------------------------------------ preparation

    def prepare(self, split: str) -> None:
        """Reads, checks and prepares every patient of a split; at once if that was done before.

        Raises:
            InputError: for the first faulty file or patient.
        """
        missing = [patient_id for patient_id in self.ids(split) if patient_id not in self.ready]
        if missing:
            self.report(f"Reading {len(missing)} patients ({split}) from {self.data.root}")
        for patient_id in missing:
            self.ready[patient_id] = self.kept(self.patients[patient_id])

    def kept(self, patient: Patient) -> Prepared | Path:
        """The prepared patient, or the file in the cache folder that holds this very one."""
        if patient.label is None:
            raise InputError(f"Patient {patient.id!r} has no label; training and evaluation need one.")
        if self.data.cache == "memory":
            return prepare(read_patient(patient, self.task.modalities, self.task.labels), self.task)
        path = Path(self.data.cache) / f"{patient.id}-{self.fingerprint(patient)}.safetensors"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = prepare(read_patient(patient, self.task.modalities, self.task.labels), self.task)
            keep_prepared(fresh, path)
        return path

    def prepared(self, patient_id: str) -> Prepared:
        """A patient of a split that `prepare` was called for."""
        ready = self.ready[patient_id]
        return kept_prepared(ready) if isinstance(ready, Path) else ready

    def fingerprint(self, patient: Patient) -> str:
        """Changes with the files, the task and the way of preparation."""
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
        """The batches of steps `first` up to, not including, `last`; of several processes each has its share.

        parts: micro-batches that each share comes in, one after the other.
        """
        check_unit(unit)
        processes.check_shares(batch, parts)
        self.prepare(split)
        dataset = Patches(self, split, seed)
        shares = [list(processes.share(dataset.keys(step * batch, (step + 1) * batch))) for step in range(first, last)]
        yield from DataLoader(
            dataset,
            batch_sampler=[mine[part::parts] for mine in shares for part in range(parts)],
            collate_fn=collate,
            num_workers=self.data.workers,
            generator=torch.Generator(),  # Else it draws from torch's own, and a resumed run once more.
        )

    # ------------------------------------------------------------------------------------------- evaluation

    def samples(
        self,
        split: str,
        asked: Sequence[Scenario] | None = None,
        ids: Iterable[str] | None = None,
        unit: Unit = "sample",
    ) -> Iterator[WholeVolume]:
        """Every patient of a split (or some, by id), whole, with the scenarios that it is eligible for.

        A scenario sees the foreground of its own modalities and no more, as it would if the others were not there:
        a patient comes once for each foreground, which is once where the contrasts share their brain mask.
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
            for box, seen in boxes.items():
                yield sample(patient, box, seen, self.task)


def segmentation_task(data: DataSettings, model: ModelSettings, known: VolumeSet) -> Segmentation:
    """The task that the settings describe; modalities and regions from `known` where they are not named."""
    regions = dict(known.regions)
    if data.regions is not None:
        regions = {name: tuple(labels) for name, labels in data.regions.items()}
    modalities = known.modalities if data.modalities is None else tuple(data.modalities)
    if not modalities or not regions:
        raise InputError(
            f"Dataset {data.name!r} needs data.modalities and data.regions; `anysubset inspect {data.root}` shows them."
        )
    return Segmentation(
        modalities=modalities,
        regions=regions,
        skull_stripped=known.skull_stripped if data.skull_stripped is None else data.skull_stripped,
        patch=tuple(model.patch),
        width=WIDTH if model.width is None else model.width,
        stem=model.stem,
        pool=model.pool,
        cross_entropy=model.cross_entropy,
        overlap=model.overlap,
        window=model.window,
        mirror=model.mirror,
    )


def sample(patient: Prepared, box: Box, seen: list[Scenario], task: Segmentation) -> WholeVolume:
    """A patient cropped to a box within its foreground."""
    if patient.target is None:
        raise InputError(f"Patient {patient.id!r} has no label.")
    needed = {name for scenario in seen for name in scenario}
    image = box.within(patient.box).of(patient.image)
    inputs = {
        name: channel[None, None] for name, channel in zip(patient.modalities, image, strict=True) if name in needed
    }
    return WholeVolume((patient.id,), inputs, seen, patient.target, box, patient.spacing, task)


Key = tuple[int, int]
Item = tuple[dict[str, Tensor], Tensor, str]


class Patches(TorchDataset[Item]):
    """Augmented patches; a key is (place of the patient, number of the draw)."""

    def __init__(self, volumes: Volumes, split: str, seed: int) -> None:
        self.volumes = volumes
        self.ids = volumes.ids(split)
        self.seed = seed
        self.share = volumes.data.augment.foreground
        self.anywhere = patches(volumes.task.patch, volumes.data.augment, centred=False)
        self.centred = patches(volumes.task.patch, volumes.data.augment, centred=True)

    def keys(self, first: int, last: int) -> list[Key]:
        """Draw `first` up to, not including, `last`: every patient once, in an order of that tour, then again."""
        keys = []
        for draw in range(first, last):
            tour, place = divmod(draw, len(self.ids))
            order = np.random.default_rng([self.seed, 0, tour]).permutation(len(self.ids))
            keys.append((int(order[place]), draw))
        return keys

    def __getitem__(self, key: Key) -> Item:
        place, draw = key
        patient = self.volumes.prepared(self.ids[place])
        if patient.target is None:
            raise InputError(f"Patient {patient.id!r} has no label.")
        whole = {"image": patient.image, "target": patient.box.of(patient.target).to(torch.uint8)}
        found = whole["target"].any(dim=0, keepdim=True)
        transform = self.anywhere
        # A patient in whom no region is found, or all of the crop is one, has nothing to centre on.
        if self.share > 0 and found.any() and not found.all():
            transform = self.centred
            whole["centres"] = found.to(torch.uint8)
        transform.set_random_state(int(np.random.default_rng([self.seed, 1, draw]).integers(2**32)))
        made = untracked(transform, whole)
        image, target = made["image"].contiguous(), made["target"].contiguous()
        inputs = {name: image[i : i + 1].float() for i, name in enumerate(patient.modalities)}
        return inputs, target > 0, patient.id


def untracked(transform: Compose, item: dict[str, Tensor]) -> dict[str, Tensor]:
    """The transformed item, without the history that MONAI would keep with each tensor, which takes half the time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        made = transform(item)
    finally:
        set_track_meta(before)
    # MONAI gives a list where a transform could give several crops.
    first: dict[str, Tensor] = made[0] if isinstance(made, list) else made
    return first


# --------------------------------------------------------------------------------------------- kept on disk


def keep_prepared(patient: Prepared, path: Path) -> None:
    """Writes a prepared patient, whole or not at all."""
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


def kept_prepared(path: Path) -> Prepared:
    """What `keep_prepared` wrote."""
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
