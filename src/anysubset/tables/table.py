"""A table in memory: samples with a target, any of which may lack modalities. Every file format is read into one.

A modality holds only the samples that have it. `read_table` of `formats.py` lists the file formats.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.datasets.splits import USUAL, Splits, checked, other_spelling, usual_name
from anysubset.errors import InputError, unknown


@dataclass(frozen=True)
class Origin:
    """Facts of the file that a table was read from.

    layout: such as `MulT pickle, aligned`.
    padding: end of the sequences where the file has padding, by modality: `front`, `end` or `none`.
    cleaned: number of NaN or infinite values that were set to 0 on request, by modality.
    all_zero: number of samples that have the modality and hold zeros only, as where a detector failed, by modality.
    notes: lines for the user.
    """

    layout: str
    padding: Mapping[str, str] = field(default_factory=dict)
    cleaned: Mapping[str, int] = field(default_factory=dict)
    all_zero: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Table:
    """Samples with a target, any of which may lack modalities.

    ids: unique, one for each sample, in the order of the file.
    inputs: by modality, the samples that have it: indices (n,) and values (n, size), (n, time, size), (n, channels,
        height, width) float32, (n, time) int64 for token ids, or (n, time) float32 for waveforms. Sequences, token ids
        and waveforms have valid (n, time) bool, which steps are real; all other steps hold 0.
    target: (samples,) float32 for regression, or int64 for classes from 0; or (samples, targets) float32 for several
        numbers or labels.
    groups: the group of each sample, such as the video of an utterance; or None.
    splits: ids by name, `train`, `val` and `test` first; samples in no split are not used; or None.
    origin: facts of the file; or None.
    classes: names of the classes, in the order of their numbers; by default the numbers themselves.
    columns: names of the columns of vectors and steps, by modality, if the file names them.
    speakers: who speaks in each sample; or None.
    weights: (samples,) float32, of the samples in the loss, 0 or more; None if all count alike.

    Raises:
        InputError: if any of this does not hold, a value is NaN or infinite, or a sample has no modality.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Observed]
    target: Tensor
    groups: tuple[str, ...] | None = None
    splits: Splits | None = None
    origin: Origin | None = None
    classes: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    speakers: tuple[str, ...] | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        check_ids(self.ids)
        check_letters("ids", self.ids)
        check_letters("groups", self.groups or ())
        check_letters("speakers", self.speakers or ())
        check_letters("names of classes", self.classes or ())
        check_letters("names of modalities", self.inputs)
        check_target(self.target, len(self.ids), self.classes)
        if self.groups is not None and len(self.groups) != len(self.ids):
            raise InputError(f"{len(self.ids)} samples came with {len(self.groups)} groups.")
        if self.speakers is not None and len(self.speakers) != len(self.ids):
            raise InputError(f"{len(self.ids)} samples came with {len(self.speakers)} speakers.")
        if self.weights is not None and (self.weights.shape != (len(self.ids),) or not (self.weights >= 0).all()):
            raise InputError(
                f"{len(self.ids)} samples came with weights of shape {tuple(self.weights.shape)}, or below 0."
            )
        if self.splits is not None:
            check_table_splits(self.splits, self.ids)
        for name, observed in self.inputs.items():
            check_observed(name, observed, len(self.ids))
        check_present(self.ids, self.inputs)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that at least one sample has."""
        return tuple(self.inputs)

    @property
    def regression(self) -> bool:
        """True if the target is a number, False if it is a class."""
        return self.target.is_floating_point()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers; empty if the target is a number."""
        if self.regression:
            return ()
        return self.classes or tuple(str(number) for number in range(int(self.target.max()) + 1))

    def select(self, ids: Iterable[str]) -> "Table":
        """Select samples, in the order of `ids`. A modality that none of them has, has no key.

        Raises:
            InputError: if there is no such sample, an id is repeated, or there is no id.
        """
        ids = tuple(ids)
        index_of = {sample: index for index, sample in enumerate(self.ids)}
        for sample in ids:
            if sample not in index_of:
                raise unknown("sample", sample, self.ids[:5])
        check_ids(ids)
        indices = torch.tensor([index_of[sample] for sample in ids])
        inputs = {name: taken(observed, indices, len(self)) for name, observed in self.inputs.items()}
        selected = set(ids)
        splits = {
            name: tuple(sample for sample in split if sample in selected) for name, split in (self.splits or {}).items()
        }
        return replace(
            self,
            ids=ids,
            inputs={name: observed for name, observed in inputs.items() if len(observed.indices)},
            target=self.target[indices],
            groups=None if self.groups is None else tuple(self.groups[index] for index in indices.tolist()),
            speakers=None if self.speakers is None else tuple(self.speakers[index] for index in indices.tolist()),
            weights=None if self.weights is None else self.weights[indices],
            splits=None if self.splits is None else {name: split for name, split in splits.items() if split},
        )

    def split(self, name: str) -> "Table":
        """Select the samples of a split.

        Raises:
            InputError: if there is no such split.
        """
        if name not in (self.splits or {}):
            raise unknown("split", name, self.splits or {})
        return self.select((self.splits or {})[name])


def taken(observed: Observed, indices: Tensor, samples: int) -> Observed:
    """Select those of the samples with these indices that have a modality.

    Args:
        observed: the modality.
        indices: (k,) int64; the samples of the result are numbered by their position here.
        samples: number of samples of the table.
    """
    entry_of = torch.full((samples,), -1)  # Index of a sample -> its row in `observed`, -1 where it is missing.
    entry_of[observed.indices] = torch.arange(len(observed.indices))
    entries = entry_of[indices]
    rows = torch.nonzero(entries >= 0).flatten()
    entries = entries[rows]
    return Observed(observed.values[entries], rows, None if observed.valid is None else observed.valid[entries])


# ---------------------------------------------------------------------------------------------------- checks


def shown(names: Iterable[str]) -> str:
    """The first three names, and the number of all if there are more."""
    names = [name if len(name) <= 60 else f"{name[:60]}..." for name in names]
    return ", ".join(names[:3]) + (f", ... ({len(names)} in all)" if len(names) > 3 else "")


def check_ids(ids: tuple[str, ...]) -> None:
    """Raise InputError if there is no id, or an id is repeated."""
    if not ids:
        raise InputError("A table needs at least one sample.")
    if len(set(ids)) < len(ids):
        twice = [sample for sample, count in Counter(ids).items() if count > 1]
        raise InputError(f"Ids must be unique; these come more than once: {shown(twice)}.")


def check_letters(noun: str, texts: Iterable[str]) -> None:
    """Raise InputError if a text has halves of letters (surrogates), which no file of text can hold."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InputError(f"The {noun} hold {half!r}, which is half of a letter: write them in Unicode.") from None


def check_target(target: Tensor, samples: int, classes: tuple[str, ...] | None) -> None:
    """Raise InputError if the target is not one finite number, or one class among the named ones, for each sample."""
    if target.shape[:1] != (samples,) or target.ndim > 1 + target.is_floating_point():
        raise InputError(f"{samples} samples came with a target of shape {tuple(target.shape)}: give one number each.")
    if target.dtype not in (torch.float32, torch.int64):
        raise InputError(f"A target is float32 (regression) or int64 (classes), not {target.dtype}.")
    if not torch.isfinite(target).all():
        raise InputError(f"The target is NaN or infinite for {int((~torch.isfinite(target)).sum())} samples.")
    if target.dtype == torch.int64 and target.min() < 0:
        raise InputError(f"Classes count from 0; the least is {int(target.min())}. Store numbers to predict as floats.")
    if classes is not None and (target.dtype != torch.int64 or target.max() >= len(classes)):
        raise InputError(f"The target does not fit {len(classes)} names of classes, which are for int64 from 0.")


def check_table_splits(splits: Splits, ids: tuple[str, ...]) -> None:
    """Raise InputError for empty splits, ids in two splits, ids of no sample, and other names of the usual splits."""
    of_samples = set(ids)
    for name in splits:
        if usual_name(name) != name:
            raise InputError(f"Call the split {name!r} {usual_name(name)!r}; the usual names are {', '.join(USUAL)}.")
    for name, split in checked("The table", {name: list(split) for name, split in splits.items()}).items():
        if not of_samples.issuperset(split):
            absent = [sample for sample in split if sample not in of_samples]
            hint = other_spelling(absent[0], ids)
            raise InputError(f"Split {name!r} names ids that no sample has: {shown(absent)}.{hint}")


def check_observed(name: str, observed: Observed, samples: int) -> None:
    """Raise InputError if shapes, types, indices or values of a modality are not those of a table."""
    values, valid = observed.values, observed.valid
    tokens = values.ndim == 2 and values.dtype == torch.int64
    if not tokens and (values.dtype != torch.float32 or values.ndim not in (2, 3, 4)):
        raise InputError(
            f"{name} is {values.dtype} of {values.ndim} dimensions; a modality is float32 (n, size), (n, time, "
            "size), (n, channels, height, width) or, for waveforms, (n, time), or int64 (n, time) for token ids."
        )
    if not values.numel():
        raise InputError(f"{name} has the shape {tuple(values.shape)}, which has no values.")
    if observed.indices[0] < 0 or observed.indices[-1] >= samples:
        raise InputError(f"{name} has indices outside 0 to {samples - 1}, those of the table's samples.")
    if not torch.isfinite(values).all():
        raise InputError(f"{name} has {int((~torch.isfinite(values)).sum())} NaN or infinite values.")
    if (valid is None and (tokens or values.ndim == 3)) or (valid is not None and values.ndim == 4):
        raise InputError(f"{name}: sequences and token ids need `valid`, and images have none.")
    if valid is not None:
        if valid.shape != values.shape[:2] or valid.dtype != torch.bool:
            raise InputError(
                f"{name}: valid is {valid.dtype} {tuple(valid.shape)}, not bool {tuple(values.shape[:2])}."
            )
        if not valid.any(dim=1).all():
            raise InputError(
                f"{name} has {int((~valid.any(dim=1)).sum())} samples without a real step: leave them out."
            )
        if values[~valid].any():
            raise InputError(f"{name} has values other than 0 in steps that are not real.")


def check_present(ids: tuple[str, ...], inputs: Mapping[str, Observed]) -> None:
    """Raise InputError if a sample has no modality."""
    empty = torch.ones(len(ids), dtype=torch.bool)
    for observed in inputs.values():
        empty[observed.indices] = False
    if empty.any():
        lacking = [ids[number] for number in torch.nonzero(empty).flatten().tolist()]
        remedy = "data.reading.empty drop leaves them out, if the training has it; or leave them out of the data."
        raise InputError(f"Samples need at least one modality; these have none: {shown(lacking)}. {remedy}")


def torn_groups(table: Table) -> list[str]:
    """Groups with samples in more than one split, sorted: scores on one split then profit from the other."""
    owners: dict[str, set[str]] = {}
    group = dict(zip(table.ids, table.groups or (), strict=False))
    for name, split in (table.splits or {}).items() if group else ():
        for sample in split:
            owners.setdefault(group[sample], set()).add(name)
    return sorted(name for name, splits in owners.items() if len(splits) > 1)


def differences(first: Table, second: Table) -> list[str]:
    """Names of what differs between two tables in any bit; empty if they are equal.

    Origins, and names of columns, are not compared.
    """
    facts = ("ids", "modalities", "groups", "speakers", "splits", "class_names")
    different = [name for name in facts if getattr(first, name) != getattr(second, name)]
    different += [] if same(first.target, second.target) else ["target"]
    different += [] if same(first.weights, second.weights) else ["weights"]
    for name in dict.fromkeys([*first.inputs, *second.inputs]):
        if name not in first.inputs or name not in second.inputs:
            different.append(name)
            continue
        one, other = first.inputs[name], second.inputs[name]
        parts = {
            "values": (one.values, other.values),
            "indices": (one.indices, other.indices),
            "valid": (one.valid, other.valid),
        }
        different += [f"{name}.{part}" for part, (a, b) in parts.items() if not same(a, b)]
    return different


def same(first: Tensor | None, second: Tensor | None) -> bool:
    """True if two tensors have the same type, shape and values, or both are None."""
    if first is None or second is None:
        return first is second
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
