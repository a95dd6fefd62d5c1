"""Present modalities of the samples of a table or the patients of a folder, from which missingness is drawn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anysubset.datasets import amputation
from anysubset.datasets.missingness import Present
from anysubset.datasets.splits import Splits, check_splits, find_splits, read_splits
from anysubset.errors import unknown
from anysubset.scenarios import Scenario
from anysubset.tables.formats import read_table
from anysubset.volumes.patients import find_patients
from anysubset.volumes.spellings import modalities_in_order


@dataclass(frozen=True)
class Presence:
    """Present modalities by id, all modalities in their order, and ids by split, with a split `all`."""

    present: Present
    modalities: Scenario
    splits: Splits

    def of(self, split: str) -> Present:
        """Present modalities of the samples of a split.

        Raises:
            InputError: if there is no such split.
        """
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return {sample: self.present[sample] for sample in self.splits[split]}


def of_table(path: Path, splits: Path | None = None, **options: Any) -> Presence:
    """Presence in a table.

    path: of the table. splits: a file of splits instead of the table's own. options: those of `read_table`.
    """
    table = read_table(path, **options)
    of_file = (table.splits if splits is None else read_splits(splits)) or {}
    check_splits(of_file, table.ids, "sample")
    return Presence(amputation.presence(table), table.modalities, {**of_file, "all": table.ids})


def of_patients(path: Path, splits: Path | None = None) -> Presence:
    """Presence in a folder of patients, from file names alone. Patients without any image are left out.

    path: as for `find_patients`. splits: a file of splits instead of those beside the patients.
    """
    patients = find_patients(path)
    of_file: Splits = (find_splits(path) if splits is None else read_splits(splits)) or {}
    check_splits(of_file, {patient.id for patient in patients})
    present = {patient.id: tuple(patient.sources) for patient in patients if patient.sources}
    named = {name: tuple(patient for patient in ids if patient in present) for name, ids in of_file.items()}
    modalities = tuple(modalities_in_order({name for names in present.values() for name in names}))
    return Presence(present, modalities, {**named, "all": tuple(present)})
