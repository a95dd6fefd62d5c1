"""The signature of a run on a table: everything about the training data that prediction on another file needs.

The run folder holds it as `signature.safetensors`, with tensors `<modality>.mean` and `<modality>.deviation`, and facts
in the metadata.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.datasets.amputation import presence
from anysubset.datasets.dataset import Knowledge, fingerprint
from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario
from anysubset.scoring.baselines import constant_intensities, majority_class
from anysubset.system import tensor_file
from anysubset.system.run_files import KNOWLEDGE
from anysubset.tables.standardisation import UNMEASURED, Statistics, statistics
from anysubset.tables.table import Table, shown
from anysubset.tasks.prediction import Stream

KINDS = {2: "vector", 3: "sequence", 4: "image"}


@dataclass(frozen=True, eq=False)
class Signature:
    """Description of the training split of a table.

    streams: kind and size of the input by modality, in the order of the task.
    classes: names of the classes, in the order of their numbers; empty for regression.
    limits: least and greatest target of regression, or None.
    statistics: mean and standard deviation over the training samples by modality, by which inputs are standardised;
        tokens and waveforms have none.
    constants: predictions of constant baselines by name; for classification the number of a class.
    fingerprints: hashes of the ids of each split by name; under `present`, of the modalities of the training samples.
    columns: names of the columns by modality, as far as the training file names them.
    """

    streams: Mapping[str, Stream]
    classes: tuple[str, ...]
    limits: tuple[float, float] | None
    statistics: Statistics
    constants: Mapping[str, float]
    fingerprints: Mapping[str, str]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def modalities(self) -> Scenario:
        """Modalities in the order of the task."""
        return tuple(self.streams)

    def knowledge(self) -> Knowledge:
        """The contents of the file in the run folder: tensors by name, and facts that JSON can hold."""
        tensors: dict[str, Tensor] = {}
        for name, (mean, deviation) in self.statistics.items():
            tensors |= {f"{name}.mean": mean, f"{name}.deviation": deviation}
        facts: dict[str, Any] = {
            "modalities": list(self.streams),
            "streams": {name: {"kind": stream.kind, "size": stream.size} for name, stream in self.streams.items()},
            "classes": list(self.classes),
            "limits": None if self.limits is None else list(self.limits),
            "constants": dict(self.constants),
            "fingerprints": dict(self.fingerprints),
        }
        if self.columns:
            facts["columns"] = {name: list(columns) for name, columns in self.columns.items()}
        return tensors, facts

    def with_columns(self, table: Table) -> Table:
        """The table with the columns of the training, by name. Modalities without names stay as they are.

        Raises:
            InputError: if a modality lacks a column of the training, has another one, or has two of the same name.
        """
        inputs = dict(table.inputs)
        for name, observed in table.inputs.items():
            trained, own = self.columns.get(name), table.columns.get(name)
            if trained is None or own is None or own == trained:
                continue
            if len(set(own)) < len(own):
                repeated = [column for column in own if own.count(column) > 1]
                raise InputError(f"{name} has columns with the same name: {shown(map(repr, dict.fromkeys(repeated)))}.")
            lacking = [column for column in trained if column not in own]
            other = [column for column in own if column not in trained]
            if lacking or other or len(own) != len(trained):
                lacks = f" lacks the columns {shown(map(repr, lacking))}" if lacking else ""
                has = f" has the columns {shown(map(repr, other))}" if other else ""
                both = " and" if lacks and has else ""
                raise InputError(
                    f"{name}{lacks}{both}{has}; the run was trained on {shown(trained)}: give the same columns, in any "
                    "order."
                )
            order = [own.index(column) for column in trained]
            inputs[name] = replace(observed, values=observed.values[..., order].contiguous())
        names = {name: self.columns.get(name, own) for name, own in table.columns.items()}
        return replace(table, inputs=inputs, columns=names)

    def column_means(self, name: str, columns: Sequence[str] | None, observed: Observed) -> Tensor:
        """Means of the columns of a modality over the training samples, (size,), in the order of other data.

        Args:
            name: of the modality.
            columns: names of its columns in the other data, if they have names.
            observed: the modality in the other data; if it has other columns, which `with_columns` and `check` refuse,
                all means are 0.
        """
        size = observed.values.shape[1 if observed.values.ndim == 4 else -1]
        mean = self.statistics[name][0].flatten()
        trained = self.columns.get(name)
        if trained is not None and columns is not None and sorted(trained) == sorted(columns):
            mean = mean[[trained.index(column) for column in columns]]
        return mean if len(mean) == size else torch.zeros(size, dtype=mean.dtype)

    def check(self, table: Table) -> None:
        """Raise InputError if the input of a modality has another kind or size than in training."""
        for name, observed in table.inputs.items():
            stream, trained = stream_of(observed), self.streams[name]
            if stream != trained:
                raise InputError(
                    f"{name} is of kind {stream.kind} and size {stream.size}; the run was trained on kind "
                    f"{trained.kind} and size {trained.size}."
                )

    def with_classes(self, table: Table) -> Table:
        """The table with the classes of the training, by name.

        Raises:
            InputError: if the targets are of another kind than in training, out of range, or of another class.
        """
        self.check_target(table)
        if not self.classes:
            return table
        index_of = {name: index for index, name in enumerate(self.classes)}
        codes = torch.tensor([index_of.get(name, 0) for name in table.class_names])
        return replace(table, target=codes[table.target], classes=self.classes)

    def check_target(self, table: Table) -> None:
        """Raise InputError if the targets are of another kind than in training, out of range, or of another class."""
        if table.regression == bool(self.classes):
            kinds = ("numbers", "classes") if table.regression else ("classes", "numbers")
            raise InputError(f"The targets are {kinds[0]}, and the run was trained on {kinds[1]}.")
        if self.classes:
            names = [table.class_names[index] for index in table.target.unique().tolist()]
            if other := [name for name in names if name not in self.classes]:
                count = len(self.classes)
                raise InputError(
                    f"Class {shown(other)} is not among the {count} of the training data: {shown(self.classes)}."
                )
        least, greatest = float(table.target.min()), float(table.target.max())
        if self.limits is not None and not self.limits[0] <= least <= greatest <= self.limits[1]:
            raise InputError(
                f"Targets go from {least:g} to {greatest:g}, outside {self.limits[0]:g} to {self.limits[1]:g}; "
                "for targets of another range, set data.name to table."
            )


def same_inputs(one: Signature, other: Signature, modality: str) -> bool:
    """Whether a modality has the same input in two signatures: kind, size, and columns, in any order.

    Columns are compared if both signatures name them.
    """
    if modality not in one.streams or modality not in other.streams or one.streams[modality] != other.streams[modality]:
        return False
    columns = [signature.columns.get(modality) for signature in (one, other)]
    return None in columns or sorted(columns[0] or ()) == sorted(columns[1] or ())


def started_from(own: Signature, start: Signature, as_stored: Collection[str] = ()) -> Signature:
    """The signature of a table for a training that starts from the weights of another table.

    Modalities with the same input keep the statistics and the order of columns with which the weights were trained:
    standardised anew, the same value would mean something else to them. Other modalities have their own.

    Args:
        own: of the new table.
        start: of the table of the weights.
        as_stored: modalities that the settings leave as they are stored.
    """
    same = [name for name in own.modalities if same_inputs(own, start, name)]
    statistics = {name: start.statistics[name] for name in same if name in start.statistics and name not in as_stored}
    columns = {name: start.columns[name] for name in same if name in start.columns}
    return replace(own, statistics={**own.statistics, **statistics}, columns={**own.columns, **columns})


def signature_of(
    table: Table,
    modalities: Sequence[str],
    limits: tuple[float, float] | None,
    splits: Sequence[str],
    as_stored: Sequence[str] = (),
) -> Signature:
    """Compute the signature of a table from its split `train`.

    Args:
        table: has a split `train`.
        modalities: names in the order of the task.
        limits: least and greatest target of regression, or None.
        splits: names of the splits whose ids must not change when training is resumed.
        as_stored: modalities that are not standardised.

    Raises:
        InputError: if a modality is missing in all training samples or unknown, or there is only one class.
    """
    train = table.split("train")
    for name in modalities:
        if name not in train.inputs:
            raise InputError(f"No training sample has {name!r}: leave it out of data.modalities.")
    for name in as_stored:
        if name not in modalities:
            raise unknown("modality of data.as_stored", name, modalities)
    classes = table.class_names
    if len(classes) == 1:
        raise InputError(f"Every sample is of class {classes[0]}; give at least two classes.")
    present = presence(table)
    fingerprints = {name: fingerprint(table.split(name).ids) for name in splits}
    fingerprints["present"] = fingerprint(f"{sample} {' '.join(present[sample])}" for sample in train.ids)
    return Signature(
        streams={name: stream_of(train.inputs[name]) for name in modalities},
        classes=classes,
        limits=limits,
        statistics=statistics(train, as_stored),
        constants=constants_of(train),
        fingerprints=fingerprints,
        columns={name: table.columns[name] for name in modalities if name in table.columns},
    )


def read_signature(path: Path) -> Signature:
    """Read the signature of a run.

    Raises:
        InputError: if the file does not exist or holds no signature.
    """
    tensors, facts = tensor_file.load(path, KNOWLEDGE)
    try:
        measured = [name for name in facts["modalities"] if facts["streams"][name]["kind"] not in UNMEASURED]
        signature = Signature(
            streams={name: Stream(**facts["streams"][name]) for name in facts["modalities"]},
            classes=tuple(facts["classes"]),
            limits=None if facts["limits"] is None else (facts["limits"][0], facts["limits"][1]),
            statistics={name: (tensors[f"{name}.mean"], tensors[f"{name}.deviation"]) for name in measured},
            constants=facts["constants"],
            fingerprints=facts["fingerprints"],
            columns={name: tuple(columns) for name, columns in facts.get("columns", {}).items()},
        )
    except (KeyError, TypeError, IndexError):
        raise InputError(
            f"{path} does not hold the signature of a run on a table (its modalities, their sizes and statistics): "
            "restore the file, or train the run again."
        ) from None
    check_parts(signature, path)
    return signature


def check_parts(signature: Signature, path: Path) -> None:
    """Raise InputError if modalities, classes or statistics of a signature do not fit together. path: of the file."""
    names = signature.modalities
    fault = ""
    if not names or any(not name for name in names):
        fault = "it names no modalities"
    elif len(set(signature.classes)) < len(signature.classes) or len(signature.classes) == 1:
        fault = "classes must be none, or at least two different ones"
    elif signature.limits is not None and signature.limits[0] >= signature.limits[1]:
        fault = "limits must ascend"
    for name, pair in signature.statistics.items():
        shape = (signature.streams[name].size, *((1, 1) if signature.streams[name].kind == "image" else ()))
        for part, tensor in zip(("mean", "deviation"), pair, strict=True):
            if tensor.dtype != torch.float64 or tensor.shape != shape or not torch.isfinite(tensor).all():
                fault = f"{name}.{part} must be finite float64 of shape {shape}"
        if not fault and (pair[1] < 0).any():
            fault = f"{name}.deviation must not be negative"
    if fault:
        raise InputError(f"{path} is damaged: {fault}. Restore the file, or train the run again.")


def stream_of(observed: Observed) -> Stream:
    """Kind and size of the input of a modality."""
    values = observed.values
    if values.ndim == 2 and observed.valid is not None:
        return Stream("waveform" if values.is_floating_point() else "tokens", 1)
    return Stream(KINDS[values.ndim], values.shape[1 if values.ndim == 4 else -1])


def constants_of(train: Table) -> dict[str, float]:
    """Predictions of constant baselines by name: the majority class; for regression, majority sign, mean and median."""
    if train.target.ndim > 1:
        return {}
    if train.regression:
        return constant_intensities(train.target)
    return {"majority": majority_class(train.target)}
