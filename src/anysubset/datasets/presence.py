"""Who has what on disk, in a table and in a folder of patients alike: what missingness is drawn from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anysubset.datasets import amputation
from anysubset.datasets.missingness import Present
from anysubset.datasets.splits import Splits, check_splits, find_splits, read_splits
from anysubset.errors import unknown
from anysubset.scenarios import Scenario
from anysubset.tables.formats import read_table
from anysubset.volumes.patients import find_patients, modalities_in_order


@dataclass(frozen=True)
class Presence:
    """present: modalities by id. modalities: all there are, in their order. splits: ids by name, and `all`."""

    present: Present
    modalities: Scenario
    splits: Splits

    def of(self, split: str) -> Present:
        """Those of a split.

        Raises:
            InputError: if there is no such split.
        """
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return {sample: self.present[sample] for sample in self.splits[split]}


def of_table(path: Path, splits: Path | None = None, **options: Any) -> Presence:
    """Of a table; splits: of the file, unless a file of them is given; options: those of `read_table`."""
    table = read_table(path, **options)
    found = table.splits if splits is None else read_splits(splits)
    check_splits(found or {}, table.ids, "sample")
    return Presence(amputation.presence(table), table.modalities, {**(found or {}), "all": table.ids})


def of_patients(path: Path, splits: Path | None = None) -> Presence:
    """Of patients as `find_patients` finds them; splits: beside them, unless a file of them is given.

    Nothing is read but names. A patient without any image has nothing to lose, and is left out.
    """
    patients = find_patients(path)
    found: Splits | None = find_splits(path) if splits is None else read_splits(splits)
    check_splits(found or {}, {patient.id for patient in patients})
    present = {patient.id: tuple(patient.sources) for patient in patients if patient.sources}
    named = {name: tuple(each for each in ids if each in present) for name, ids in (found or {}).items()}
    modalities = tuple(modalities_in_order({name for names in present.values() for name in names}))
    return Presence(present, modalities, {**named, "all": tuple(present)})
