"""The table that the settings of an experiment describe, read from disk, and what is reported of it."""

from typing import Any

from anysubset.datasets.dataset import place_of
from anysubset.datasets.groups import is_file
from anysubset.errors import unknown
from anysubset.experiments.data_settings import DataSettings
from anysubset.tables.formats import read_table
from anysubset.tables.kinds import TableSet
from anysubset.tables.signature import Signature
from anysubset.tables.table import Table


def asked_for(data: DataSettings, table_set: TableSet) -> dict[str, str] | None:
    """Names in the file of the modalities of the settings or the data set, by modality; None for all of the file.

    Raises:
        InputError: if `data.reading.modalities` renames a modality that the settings do not use.
    """
    renamed = data.reading.modalities or {}
    names = list(data.modalities or table_set.modalities or renamed)
    for name in renamed:
        if name not in names:
            raise unknown("modality", name, names)
    return {name: renamed.get(name, name) for name in names} or None


def load_table(
    data: DataSettings, table_set: TableSet, trained: Signature | None = None, unlabelled: bool = False
) -> Table:
    """Read the table that the settings describe.

    Args:
        data: its path, and how to read it.
        table_set: its modalities, if it is a public data set.
        trained: of a trained run: any of its modalities may be absent from the file, and its kind of target is
            expected. By default every modality that the settings name must be in the file.
        unlabelled: for prediction alone: the target may be absent, and a named column of splits is not read.

    Raises:
        InputError: if the file cannot be read, or lacks what the settings name.
    """
    wanted, kind = asked_for(data, table_set), data.reading.kind
    if trained is not None:
        wanted = {name: (wanted or {}).get(name, name) for name in trained.modalities}
        kind = kind or ("classes" if trained.classes else "regression")
    group = str(place_of(data.group, data.root)) if data.group is not None and is_file(data.group) else data.group
    options: dict[str, Any] = {**vars(data.reading), "modalities": wanted, "kind": kind, "group": group}
    if unlabelled:
        options |= {"split": None}
    return read_table(data.root, **options, absent=trained is not None, unlabelled=unlabelled)


def described(table: Table) -> str:
    """Number of samples, and how many have each modality, in a line."""
    counts = ", ".join(f"{name} {len(observed.indices)}" for name, observed in table.inputs.items())
    return f"{len(table)} samples ({counts})"


def notes_of(table: Table) -> list[str]:
    """Lines on what a user should know of the file, such as values that were set to 0."""
    if table.origin is None:
        return []
    cleaned = [f"{count} NaN or infinite values of {name} became 0." for name, count in table.origin.cleaned.items()]
    zero = [f"{count} samples have {name} that is all zero." for name, count in table.origin.all_zero.items()]
    return [*table.origin.notes, *cleaned, *zero]
