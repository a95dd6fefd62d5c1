"""Which columns of a frame belong to which modality: by a dict, by a prefix, by a function, or by a level of names."""

from collections.abc import Mapping
from typing import Any

from anysubset.errors import InputError
from anysubset.tables.in_memory import checked_modalities
from anysubset.tables.table import shown

JOIN = "/"  # Between the levels of a column's name, where a frame has several.


def column_groups(modalities: Any, frame: Any) -> Mapping[str, Any] | None:
    """The columns of each modality of an array or frame; None if all columns are a single modality.

    Args:
        modalities: the parameter of the estimator: a dict, which is returned; text, such as "_", by which the name of
            the modality ends in the names of its columns (`rna_TP53`); a function from the name of a column to that of
            its modality, or None for a column that is not read; or None, where a frame with several levels of column
            names has a modality for each name in the first one.
        frame: X.

    Raises:
        InputError: if the columns have no names to group by, or a name does not have the form.
    """
    levels = getattr(getattr(frame, "columns", None), "nlevels", 1)
    if modalities is None:
        return (
            grouped(dict.fromkeys(plain_names(frame)), [str(name[0]) for name in frame.columns]) if levels > 1 else None
        )
    if isinstance(modalities, Mapping) or not (isinstance(modalities, str) or callable(modalities)):
        return checked_modalities(modalities)
    names = plain_names(frame)
    if not names:
        raise InputError("modalities as text or as a function groups columns by name: give a frame with named columns.")
    if isinstance(modalities, str):
        without = [name for name in names if not name.partition(modalities)[1] or name.startswith(modalities)]
        if without or not modalities:
            raise InputError(
                f"modalities={modalities!r} is the end of the prefix of each column, which {shown(without or names)} "
                "do not have: drop these columns, or give a function that returns None for them."
            )
        return grouped(names, [name.partition(modalities)[0] for name in names])
    owners = [modalities(name) for name in names]
    for name, owner in zip(names, owners, strict=True):
        if owner is not None and not isinstance(owner, str):
            raise InputError(f"modalities({name!r}) is {owner!r}: return the name of a modality, or None.")
    if not any(owners):
        raise InputError("modalities returns None for every column: return the name of a modality for at least one.")
    return grouped(names, owners)


def grouped(names: Any, owners: list[str | None]) -> dict[str, list[str]]:
    """Columns of each modality, in their order. owners: the modality of each column; None if it has none."""
    columns: dict[str, list[str]] = {}
    for name, owner in zip(names, owners, strict=True):
        if owner is not None:
            columns.setdefault(owner, []).append(name)
    return columns


def plain_names(frame: Any) -> list[str]:
    """Names of the columns of a frame, several levels joined by a slash; empty for anything else."""
    columns = getattr(frame, "columns", None)
    if columns is None:
        return []
    return [JOIN.join(map(str, name)) if isinstance(name, tuple) else str(name) for name in columns]


def with_plain_columns(frame: Any) -> Any:
    """A frame with one level of column names; anything else as it is."""
    if getattr(getattr(frame, "columns", None), "nlevels", 1) == 1:
        return frame
    return frame.set_axis(plain_names(frame), axis=1)
