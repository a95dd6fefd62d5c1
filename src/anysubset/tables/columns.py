"""Make a checked table from the arrays of a file.

The arrays have an entry for every sample; in the table a modality holds only the samples that have it. The readers of
the formats supply the arrays. This file handles, for all formats alike, missing modalities, NaN and infinite values,
types, and padding, which must not influence results. A sample whose values are all NaN lacks the modality; one that is
NaN in part is refused.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from anysubset.batches import Observed, renumbered
from anysubset.datasets.splits import Splits
from anysubset.errors import InputError, unknown
from anysubset.experiments.data_settings import ReadingSettings
from anysubset.tables.labels import spellings
from anysubset.tables.observation import Column, Faults, all_zero, faults_line, note_on_code, notes_on, observe
from anysubset.tables.table import Origin, Table
from anysubset.tables.targets import Target


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


def assemble(
    layout: str,
    ids: Sequence[str],
    columns: Mapping[str, Column],
    target: Target,
    options: Options,
    groups: Sequence[str] | None = None,
    splits: Splits | None = None,
    notes: Iterable[str] = (),
    speakers: Sequence[str] | None = None,
) -> Table:
    """Make the table of a file.

    Args:
        layout: of the file, for `Origin`.
        ids: of the samples.
        columns: by modality.
        target: of the samples.
        options: `clean` and `empty` are used.
        groups: the group of each sample, or None.
        splits: ids by name, or None.
        notes: lines for the user.
        speakers: who speaks in each sample, or None.

    Raises:
        InputError: if a value is NaN or infinite without `clean`, or the table is faulty.
    """
    faulty: dict[str, Faults] = {}
    inputs: dict[str, Observed] = {}
    lines = [*notes, *target.notes]
    if alike := spellings(columns):
        lines.append(f"Modalities differ only in capital letters: {', '.join(alike)}.")
    for name, column in columns.items():
        observed, faulty[name] = observe(name, column, len(ids))
        if len(observed.indices):
            inputs[name] = observed
        elif not options.absent:
            lines.append(f"No sample has {name}: it is left out.")
        lines += [*notes_on(name, column, faulty[name]), *note_on_code(name, observed)]
    faulty = {name: faults for name, faults in faulty.items() if faults.values}
    if faulty and options.clean is None:
        raise InputError(faults_line(faulty, columns, ids))
    origin = Origin(
        layout,
        {name: columns[name].padding for name, observed in inputs.items() if observed.valid is not None},
        {name: faults.values for name, faults in faulty.items()},
        {name: count for name, observed in inputs.items() if (count := all_zero(observed))},
        tuple(lines),
    )
    values, remaining = target.values, having_any(inputs)
    if options.empty == "drop" and len(remaining) < len(ids):
        line = f"{len(ids) - len(remaining)} of {len(ids)} samples had no modality and were dropped, as requested."
        origin = replace(origin, notes=(*origin.notes, line))
        inputs = renumbered(inputs)
        ids, values = [ids[index] for index in remaining], values[remaining]
        groups = groups and [groups[index] for index in remaining]
        speakers = speakers and [speakers[index] for index in remaining]
        if splits is not None:
            thinned = {name: tuple(sample for sample in split if sample in set(ids)) for name, split in splits.items()}
            splits = {name: split for name, split in thinned.items() if split}
    group = tuple(groups) if groups is not None else None
    names = {name: columns[name].names or () for name in inputs if columns[name].names}
    spoken = tuple(speakers) if speakers is not None else None
    return Table(tuple(ids), inputs, values, group, splits, origin, target.classes or None, names, spoken)


def having_any(inputs: Mapping[str, Observed]) -> list[int]:
    """Indices of the samples that have at least one modality, ascending."""
    return sorted({row for observed in inputs.values() for row in observed.indices.tolist()})
