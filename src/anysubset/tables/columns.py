"""Make a checked table from the arrays of a file.

The arrays have an entry for every sample; in the table a modality holds only the samples that have it. The readers of
the formats supply the arrays. This file handles, for all formats alike, missing modalities, NaN and infinite values,
types, and padding, which must not influence results.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anysubset.batches import Observed, renumbered
from anysubset.datasets.splits import Splits
from anysubset.errors import InputError, unknown
from anysubset.experiments.settings import ReadingSettings
from anysubset.tables.labels import whole_numbers
from anysubset.tables.table import Origin, Table, shown

Array = NDArray[Any]


@dataclass(frozen=True)
class Options(ReadingSettings):
    """Options of a reader; `read_table` explains them. None stands for the default of the layout."""

    group: str | None = None
    absent: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        choices = {"kind": ("regression", "classes"), "padding": ("front", "end", "none")}
        for name, values in {**choices, "clean": ("zero",), "empty": ("drop",)}.items():
            if getattr(self, name) not in (None, *values):
                raise unknown(name, getattr(self, name), values)

    def only(self, layout: str, *names: str) -> None:
        """Raise InputError for an option that is neither among `names` nor common to all layouts."""
        for option in fields(self):
            value = getattr(self, option.name)
            everywhere = ("clean", "empty", "absent", "unlabelled")
            if value is not None and value != [] and option.name not in (*names, *everywhere):
                hint = ": give a pattern of ids or a file of groups" if option.name == "group" else ""
                raise InputError(f"The option {option.name!r} means nothing for a {layout}{hint}.")

    def asked(self, in_file: Collection[str]) -> Mapping[str, str] | None:
        """Modalities to read with their names in the file; None for all of the file.

        With `absent`, those that are not in the file are left out.

        in_file: names in the file.

        Raises:
            InputError: if the file has none of them.
        """
        if self.modalities is None or not self.absent:
            return self.modalities
        available = {name: stored for name, stored in self.modalities.items() if stored in in_file}
        if not available:
            wanted = ", ".join(self.modalities.values())
            raise InputError(f"has none of {wanted}; it has: {', '.join(map(str, in_file))}.")
        return available


@dataclass(frozen=True)
class Column:
    """One modality of a file, with an entry for every sample.

    values: (samples, ...) numbers; (samples, time) integers for token ids.
    present: (samples,) bool, which samples have it; None if all have.
    valid: (samples, time) bool for sequences, which steps are real; padding is at the end.
    padding: end of the sequences where the file has padding, `front`, `end` or `none`.
    vocabulary: number of token ids, 0 to `vocabulary` - 1; None for other kinds of input.
    """

    values: Array
    present: Array | None = None
    valid: Array | None = None
    padding: str = "none"
    vocabulary: int | None = None


def assemble(
    layout: str,
    ids: Sequence[str],
    columns: Mapping[str, Column],
    target: Tensor,
    options: Options,
    groups: Sequence[str] | None = None,
    splits: Splits | None = None,
    notes: Iterable[str] = (),
) -> Table:
    """Make the table of a file.

    Args:
        layout: of the file, for `Origin`.
        ids: of the samples.
        columns: by modality.
        target: (samples,).
        options: `clean` and `empty` are used.
        groups: the group of each sample, or None.
        splits: ids by name, or None.
        notes: lines for the user.

    Raises:
        InputError: if a value is NaN or infinite without `clean`, or the table is faulty.
    """
    faulty: dict[str, tuple[int, int]] = {}
    inputs: dict[str, Observed] = {}
    for name, column in columns.items():
        observed, faulty[name] = observe(name, column, len(ids))
        if len(observed.indices):
            inputs[name] = observed
    faulty = {name: counts for name, counts in faulty.items() if counts[0]}
    if faulty and options.clean is None:
        counted = ", ".join(f"{name} {values} (in {samples} samples)" for name, (values, samples) in faulty.items())
        raise InputError(f"NaN or infinite values: {counted}. The option clean='zero' sets exactly those to 0.")
    origin = Origin(
        layout,
        {name: columns[name].padding for name, observed in inputs.items() if observed.valid is not None},
        {name: values for name, (values, _) in faulty.items()},
        {name: count for name, observed in inputs.items() if (count := all_zero(observed))},
        tuple(notes),
    )
    remaining = having_any(inputs)
    if options.empty == "drop" and len(remaining) < len(ids):
        line = f"{len(ids) - len(remaining)} of {len(ids)} samples had no modality and were dropped, as requested."
        origin = replace(origin, notes=(*origin.notes, line))
        inputs = renumbered(inputs)
        ids, target = [ids[index] for index in remaining], target[remaining]
        groups = groups and [groups[index] for index in remaining]
        if splits is not None:
            thinned = {name: tuple(sample for sample in split if sample in set(ids)) for name, split in splits.items()}
            splits = {name: split for name, split in thinned.items() if split}
    return Table(tuple(ids), inputs, target, tuple(groups) if groups is not None else None, splits, origin)


def observe(name: str, column: Column, samples: int) -> tuple[Observed, tuple[int, int]]:
    """Select the samples that have a modality, and set values that are not finite to 0.

    Returns:
        The modality; and the number of values that were not finite, with the number of samples that hold them.

    Raises:
        InputError: if there is no entry for each sample, or values are no numbers, too large, or no token ids.
    """
    values, valid = column.values, column.valid
    if len(values) != samples:
        raise InputError(f"{name} has {len(values)} samples where the target has {samples}.")
    present = np.ones(samples, bool) if column.present is None else column.present
    if valid is not None:
        present = present & valid.any(axis=1)  # A sample without a real step lacks the modality.
        valid = valid[present]
    rows, values = torch.from_numpy(np.flatnonzero(present)), values[present]
    if column.vocabulary is not None:
        assert valid is not None
        tokens = np.where(valid, whole_numbers(np.where(valid, values, 0), f"{name}: token ids"), 0)
        if tokens.size and (tokens.min() < 0 or tokens.max() >= column.vocabulary):
            raise InputError(f"{name} has token ids outside the vocabulary, 0 to {column.vocabulary - 1}.")
        return Observed(torch.from_numpy(tokens), rows, torch.from_numpy(valid)), (0, 0)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {values.dtype}, not numbers.")
    with np.errstate(over="ignore", invalid="ignore"):  # Padding may hold anything; real steps are checked below.
        result = values.astype(np.float32)
    if valid is not None:
        result[~valid] = 0
    finite = np.isfinite(result)
    wrong = ~finite
    if wrong.any():
        if np.isfinite(values[wrong]).any():
            raise InputError(f"{name} has values that float32 cannot hold: they must be from -3.4e38 to 3.4e38.")
        result[wrong] = 0
    count = int(wrong.sum()), int(wrong.reshape(len(wrong), -1).any(axis=1).sum()) if wrong.any() else 0
    return Observed(torch.from_numpy(result), rows, None if valid is None else torch.from_numpy(valid)), count


def all_zero(observed: Observed) -> int:
    """Number of samples that have the modality and hold zeros only."""
    return int((observed.values == 0).flatten(1).all(dim=1).sum())


def having_any(inputs: Mapping[str, Observed]) -> list[int]:
    """Indices of the samples that have at least one modality, ascending."""
    return sorted({row for observed in inputs.values() for row in observed.indices.tolist()})


def ragged(sequences: Sequence[Array | None], what: str, valid: Sequence[Array] | None = None) -> Column:
    """Make a column from sequences (steps, size) of different lengths; None or no steps means missing.

    Args:
        sequences: one for each sample.
        what: name of the modality, for messages.
        valid: which steps of each sequence are real; all by default.

    Raises:
        InputError: if sequences differ in size.
    """
    present = [sequence for sequence in sequences if sequence is not None and len(sequence)]
    widths = sorted({sequence.shape[1:] for sequence in present})
    if len(widths) > 1:
        raise InputError(f"{what} differs in size between samples: {shown(map(str, widths))}.")
    time = max((len(sequence) for sequence in present), default=0)
    kind = np.result_type(*{sequence.dtype for sequence in present}) if present else np.dtype(np.float32)
    values = np.zeros((len(sequences), time, *(widths[0] if widths else (1,))), kind)
    steps = np.zeros((len(sequences), time), bool)
    for index, sequence in enumerate(sequences):
        if sequence is not None:
            values[index, : len(sequence)] = sequence
            steps[index, : len(sequence)] = True if valid is None else valid[index]
    return Column(values, valid=steps)
