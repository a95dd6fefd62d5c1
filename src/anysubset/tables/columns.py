"""From what files hold, an entry a sample and modality whether there or not, to a checked table.

The readers of the formats find the arrays; what holds for all of them is done here, once: missing samples, NaN and
infinite values, types, padding that must not leak.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anysubset.batches import Observed
from anysubset.datasets.splits import Splits
from anysubset.errors import InputError, unknown
from anysubset.experiments.settings import ReadingSettings
from anysubset.tables.labels import whole_numbers
from anysubset.tables.table import Origin, Table, shown, torn_groups

Array = NDArray[Any]


@dataclass(frozen=True)
class Options(ReadingSettings):
    """What a reader is told beside the path; `read_table` explains each. None: as the layout has it."""

    absent: bool = False
    unlabelled: bool = False

    def __post_init__(self) -> None:
        choices = {"kind": ("regression", "classes"), "padding": ("front", "end", "none")}
        for name, known in {**choices, "clean": ("zero",), "empty": ("drop",)}.items():
            if getattr(self, name) not in (None, *known):
                raise unknown(name, getattr(self, name), known)

    def only(self, layout: str, *known: str) -> None:
        """Refuses options that mean nothing for a layout; some mean something for all."""
        for option in fields(self):
            given = getattr(self, option.name)
            everywhere = ("clean", "empty", "absent", "unlabelled")
            if given is not None and given != [] and option.name not in (*known, *everywhere):
                raise InputError(f"The option {option.name!r} means nothing for a {layout}.")

    def asked(self, found: Collection[str]) -> Mapping[str, str] | None:
        """The modalities that were asked for; with `absent`, those of them that the file has; None if none was named.

        found: what there is in the file, by the names that it has there.
        """
        if self.modalities is None or not self.absent:
            return self.modalities
        there = {name: stored for name, stored in self.modalities.items() if stored in found}
        if not there:
            wanted = ", ".join(self.modalities.values())
            raise InputError(f"has none of {wanted}; it has: {', '.join(map(str, found))}.")
        return there


@dataclass(frozen=True)
class Column:
    """One modality as a file holds it, with an entry for every sample.

    values: (samples, ...) numbers; (samples, time) whole ones if they are tokens. present: (samples,) bool, or None if
    everyone has it. valid: (samples, time) bool for sequences: which steps are real; padding stands at the end.
    padding: where it stood in the file. vocabulary: of tokens, how many ids there are, 0 to `vocabulary` - 1; None for
    what are no tokens.
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
    """The table that a file holds.

    Raises:
        InputError: if a value is NaN or infinite and nothing was said of it, or the table would be none.
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
    kept = having_any(len(ids), inputs)
    if options.empty == "drop" and len(kept) < len(ids):
        line = f"{len(ids) - len(kept)} of {len(ids)} samples had no modality, and were dropped as asked."
        origin = replace(origin, notes=(*origin.notes, line))
        places = dict(zip(kept, range(len(kept)), strict=True))
        inputs = {name: moved(observed, places) for name, observed in inputs.items()}
        gone = set(ids) - {ids[place] for place in kept}
        left = {name: tuple(each for each in split if each not in gone) for name, split in (splits or {}).items()}
        splits = None if splits is None else {name: split for name, split in left.items() if split}
        ids, target = [ids[place] for place in kept], target[kept]
        groups = groups and [groups[place] for place in kept]
    table = Table(tuple(ids), inputs, target, tuple(groups) if groups is not None else None, splits, origin)
    torn = torn_groups(table)
    if torn:
        line = f"{len(torn)} groups have samples in two splits: {shown(torn)}."
        table = replace(table, origin=replace(origin, notes=(*origin.notes, line)))
    return table


def observe(name: str, column: Column, samples: int) -> tuple[Observed, tuple[int, int]]:
    """The samples that have a modality, and how many values, in how many of them, were not finite, and became 0."""
    values, valid = column.values, column.valid
    if len(values) != samples:
        raise InputError(f"{name} has {len(values)} samples where the target has {samples}.")
    present = np.ones(samples, bool) if column.present is None else column.present
    if valid is not None:
        present = present & valid.any(axis=1)  # No real step: the sample lacks this modality.
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
    with np.errstate(over="ignore", invalid="ignore"):  # What padding holds is of no concern; the rest is looked at.
        result = values.astype(np.float32)
    if valid is not None:
        result[~valid] = 0
    finite = np.isfinite(result)
    wrong = ~finite
    if wrong.any():
        if np.isfinite(values[wrong]).any():
            raise InputError(f"{name} has values beyond what float32 can hold: the greatest is about 3.4e38.")
        result[wrong] = 0
    count = int(wrong.sum()), int(wrong.reshape(len(wrong), -1).any(axis=1).sum()) if wrong.any() else 0
    return Observed(torch.from_numpy(result), rows, None if valid is None else torch.from_numpy(valid)), count


def all_zero(observed: Observed) -> int:
    """How many samples have the modality and hold nothing but zeros."""
    return int((observed.values == 0).flatten(1).all(dim=1).sum())


def having_any(samples: int, inputs: Mapping[str, Observed]) -> list[int]:
    """The places of the samples that have a modality, ascending."""
    return sorted({row for observed in inputs.values() for row in observed.indices.tolist()})


def moved(observed: Observed, places: Mapping[int, int]) -> Observed:
    """The same samples at other places."""
    return replace(observed, indices=torch.tensor([places[row] for row in observed.indices.tolist()]))


def ragged(sequences: Sequence[Array | None], what: str, valid: Sequence[Array] | None = None) -> Column:
    """A column from sequences (steps, size) of different lengths; None and no steps mean missing."""
    there = [sequence for sequence in sequences if sequence is not None and len(sequence)]
    widths = sorted({sequence.shape[1:] for sequence in there})
    if len(widths) > 1:
        raise InputError(f"{what} differs in size between samples: {shown(map(str, widths))}.")
    time = max((len(sequence) for sequence in there), default=0)
    kind = np.result_type(*{sequence.dtype for sequence in there}) if there else np.dtype(np.float32)
    values = np.zeros((len(sequences), time, *(widths[0] if widths else (1,))), kind)
    steps = np.zeros((len(sequences), time), bool)
    for place, sequence in enumerate(sequences):
        if sequence is not None:
            values[place, : len(sequence)] = sequence
            steps[place, : len(sequence)] = True if valid is None else valid[place]
    return Column(values, valid=steps)
