"""The table that the settings of an experiment describe, read from disk, and what is reported of it."""

from typing import Any

from anysubset.errors import unknown
from anysubset.experiments.settings import DataSettings
from anysubset.scenarios import Scenario
from anysubset.tables.formats import read_table
from anysubset.tables.kinds import TableSet
from anysubset.tables.table import Table


def asked_for(data: DataSettings, known: TableSet) -> dict[str, str] | None:
    """The modalities that settings or dataset name, with what each is called in the file; None for all there are."""
    renamed = data.reading.modalities or {}
    names = list(data.modalities or known.modalities or renamed)
    for name in renamed:
        if name not in names:
            raise unknown("modality", name, names)
    return {name: renamed.get(name, name) for name in names} or None


def load_table(data: DataSettings, known: TableSet, trained: Scenario | None = None, unlabelled: bool = False) -> Table:
    """The table that the settings describe.

    Args:
        data: where it is, and how to read it.
        known: what kind of table it is.
        trained: the modalities of a run, whichever of them there are; by default those that are asked for, all of them.
        unlabelled: whether the target need not be there, and who is in which group and split is not asked.
    """
    wanted = asked_for(data, known)
    if trained is not None:
        wanted = {name: (wanted or {}).get(name, name) for name in trained}
    options: dict[str, Any] = {**vars(data.reading), "modalities": wanted}
    if unlabelled:
        options |= {"group": None, "split": None}
    return read_table(data.root, **options, absent=trained is not None, unlabelled=unlabelled)


def described(table: Table) -> str:
    """How many samples there are, and how many have what."""
    counts = ", ".join(f"{name} {len(observed.indices)}" for name, observed in table.inputs.items())
    return f"{len(table)} samples ({counts})"


def notes_of(table: Table) -> list[str]:
    """What is to be known of the file."""
    if table.origin is None:
        return []
    cleaned = [f"{count} NaN or infinite values of {name} became 0." for name, count in table.origin.cleaned.items()]
    zero = [f"{count} samples have {name} that is all zero." for name, count in table.origin.all_zero.items()]
    return [*table.origin.notes, *cleaned, *zero]
