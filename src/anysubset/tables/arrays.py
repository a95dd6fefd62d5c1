"""Tables in `.npz` and `.safetensors` files: one array for each modality, and arrays that describe it.

    <modality>            (samples, size), (samples, time, size) or (samples, channels, height, width); or, with
                          lengths, (samples, time) whole numbers: token ids
    <modality>_lengths    (samples,), for sequences: the number of real steps; or
    <modality>_valid      (samples, time) bool, for sequences: which steps are real
    <modality>_present    (samples,) bool: which samples have it; by default all that are not NaN throughout
    <modality>_columns    (size,) text, optional: names of the columns, by which a run takes them
    y                     (samples,): floats for regression, or integers, booleans or names for classes
    id, group, split      (samples,) text, all optional; samples whose split is blank are in none
    speaker               (samples,) text, optional: who speaks, in a group that is a dialogue

In safetensors files, id, group, split, speaker, names of classes as y, and the order of the modalities are lists in
JSON, in the header's metadata.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save as serialised

from anysubset.batches import Observed
from anysubset.errors import InputError, one_line
from anysubset.system import array_file
from anysubset.system.files import atomic_write
from anysubset.system.input_files import json_of
from anysubset.system.limits import bytes_of
from anysubset.tables.about import groups_in, ids_of, splits_in
from anysubset.tables.columns import Options, assemble
from anysubset.tables.labels import text
from anysubset.tables.observation import Array, Column
from anysubset.tables.steps import from_lengths, real_steps, to_the_front
from anysubset.tables.table import Table, shown
from anysubset.tables.targets import Target, target_of

EXTRAS = ("_lengths", "_valid", "_present", "_columns")
# Endings that other programs give to arrays which describe a modality -> what such an array is called here.
OTHER_EXTRAS = {
    **dict.fromkeys(("_len", "_lens", "_length"), "_lengths"),
    **dict.fromkeys(("_mask", "_masks", "_padding_mask"), "_valid, true for steps that are no padding"),
    "_missing": "_present, true for samples that have it",
}
KINDS = (
    *(torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
ABOUT = ("id", "group", "split")
SPEAKER = "speaker"
ORDER = "modalities"  # In safetensors, which sorts its tensors.


def read_npz(path: Path, options: Options) -> Table:
    """Read the table of an `.npz` file; objects are never unpickled."""
    return from_arrays("npz file", array_file.read_npz(path), options)


def read_safetensors(path: Path, options: Options) -> Table:
    """Read the table of a `.safetensors` file."""
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (it is no dict)
            metadata = stored.metadata() or {}
    except Exception as error:  # What is damaged can raise anything.
        raise InputError(f"cannot be read: damaged, or no safetensors file ({one_line(error)}).") from None
    about = {name: json_of(text, f"is damaged: {name!r}") for name, text in metadata.items() if in_metadata(name)}
    check_contents(tensors, about)
    names = dict.fromkeys([*about.pop(ORDER, []), *tensors])
    tensors = {name: tensors[name] for name in names if name in tensors}
    arrays = {name: (x.float() if x.dtype == torch.bfloat16 else x).numpy() for name, x in tensors.items()}
    return from_arrays("safetensors file", arrays | {name: np.asarray(lines) for name, lines in about.items()}, options)


def check_contents(tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Raise InputError if a tensor of a safetensors file is of a type that is not read, or metadata are no lists."""
    for name, lines in about.items():
        if not isinstance(lines, list) or not all(isinstance(line, str | int | float | None) for line in lines):
            raise InputError(f"is damaged: {name!r} in its metadata must be a list of text, in JSON.")
    for name, tensor in tensors.items():
        if tensor.dtype not in KINDS:
            raise InputError(f"has the array {name!r} of {tensor.dtype}, which is not read: save it as float32.")
        if not tensor.numel() and bytes_of(tensor.shape, 1) > 10**6:
            raise InputError(f"has the array {name!r} of shape {tuple(tensor.shape)}, which has no values.")


def in_metadata(name: str) -> bool:
    """True for entries of a safetensors file's metadata that describe the table."""
    return name in (*ABOUT, SPEAKER, ORDER, "y") or name.endswith("_columns")


def from_arrays(layout: str, arrays: Mapping[str, Array], options: Options) -> Table:
    """Make a table from arrays by name."""
    options.only(layout, "modalities", "target", "kind", "column", "id", "group", "split", "images", "padding")
    names = {kind: getattr(options, kind) or kind for kind in ABOUT}
    for kind in ABOUT:
        if getattr(options, kind) is not None and getattr(options, kind) not in arrays:
            raise InputError(f"has no array {getattr(options, kind)!r}; it holds: {', '.join(arrays)}.")
    label = options.target or "y"
    if label not in arrays and not options.unlabelled:
        raise InputError(
            f"has no array {label!r}, the target: name it with --data.reading.target (in Python target=). It holds: "
            f"{', '.join(arrays)}."
        )
    speaking = {SPEAKER} if SPEAKER in arrays and arrays[SPEAKER].ndim == 1 else set()
    wanted = options.asked(arrays) or modalities_in(arrays, {label, *names.values(), *speaking})
    for stored in wanted.values():
        if stored not in arrays:
            raise InputError(f"has no array {stored!r}; it holds: {', '.join(arrays)}.")
    if options.unlabelled:
        target = Target(torch.zeros(len(arrays[next(iter(wanted.values()))]) if wanted else 0))
    else:
        target = target_of(arrays[label], label, options.kind, options.column)
    samples = len(target.values)
    about = {kind: entries_of(arrays[name], name, samples) for kind, name in names.items() if name in arrays}
    ids = ids_of(about.get("id", range(samples)), "The file")
    groups = groups_in(about["group"], names["group"], ids) if "group" in about else None
    columns = {
        name: with_names(
            column_of(arrays, stored, samples, name in options.images, options), arrays.get(f"{stored}_columns"), stored
        )
        for name, stored in wanted.items()
    }
    splits = splits_in(about["split"], ids) if "split" in about else None
    speakers = [text(name) for name in entries_of(arrays[SPEAKER], SPEAKER, samples)] if speaking else None
    return assemble(layout, ids, columns, target, options, groups, splits, speakers=speakers)


def modalities_in(arrays: Mapping[str, Array], taken: set[str]) -> dict[str, str]:
    """Names of the modalities, both in the table and in the file: all arrays that do not describe another one.

    taken: arrays that are no modalities: target, ids, groups, splits and speakers.

    Raises:
        InputError: if another array has fewer than two dimensions, or is called as if it described a modality.
    """
    modalities = {}
    for name in arrays:
        if name in taken or any(name.endswith(extra) and name.removesuffix(extra) in arrays for extra in EXTRAS):
            continue
        for ending, ours in OTHER_EXTRAS.items():
            described = name.removesuffix(ending)
            if described != name and described in arrays and arrays[name].ndim <= 2:
                raise InputError(
                    f"array {name!r} seems to describe {described!r}: call it {described}{ours}; or, if it is a "
                    "modality or of no use, name the modalities with data.modalities (in Python modalities=)."
                )
        if arrays[name].ndim < 2:
            shape = arrays[name].shape
            raise InputError(
                f"array {name!r} of shape {shape} is no modality: name those that are with data.modalities (in Python "
                "modalities=)."
            )
        modalities[name] = name
    return modalities


def column_of(arrays: Mapping[str, Array], name: str, samples: int, image: bool, options: Options) -> Column:
    """Make a modality from its array and the arrays that describe it."""
    values = arrays[name]
    lengths, valid, present = (arrays.get(name + extra) for extra in EXTRAS[:3])
    if len(values) != samples or (present is not None and present.shape != (samples,)):
        faulty = name if len(values) != samples else name + "_present"
        raise InputError(f"{faulty} has the shape {arrays[faulty].shape}, and the target {samples} samples.")
    present = None if present is None else marks(present, f"{name}_present")
    if values.ndim == 1:
        values = values[:, None]
    if image:
        return Column(values[:, None] if values.ndim == 3 else values, present)
    if values.ndim != 3 and lengths is None and valid is None:
        return Column(values, present)
    if values.ndim not in (2, 3):
        raise InputError(
            f"{name} has lengths and the shape {values.shape}: sequences are (samples, time, size), token ids "
            f"(samples, time) integers, and waveforms (samples, time) floats; mark samples without them in "
            f"{name}_present."
        )
    side = "none"
    if valid is not None:
        if valid.shape != values.shape[:2]:
            raise InputError(f"{name}_valid has the shape {valid.shape} beside {name} with {values.shape}.")
        steps, side = marks(valid, f"{name}_valid"), "end"
    elif lengths is not None:
        steps, side = from_lengths(lengths, samples, values.shape[1], f"{name}_lengths"), "end"
    else:
        side = options.padding or "none"
        steps = real_steps(values, side)
    if side == "front":
        values, steps = to_the_front(values, steps)
    tokens = np.iinfo(np.int64).max if values.ndim == 2 and values.dtype.kind in "iu" else None
    return Column(values, present, steps, "none" if steps.all() else side, tokens)


def with_names(column: Column, names: Array | None, what: str) -> Column:
    """The column with the names of its columns; raises InputError unless there is a name for each."""
    if names is None:
        return column
    if names.shape != column.values.shape[-1:] or column.vocabulary is not None or column.values.ndim > 3:
        raise InputError(f"{what}_columns has the shape {names.shape}, and {what} {column.values.shape}.")
    if len(set(names.tolist())) < len(names):
        raise InputError(f"{what}_columns names a column twice: {shown(map(text, names.tolist()))}.")
    return replace(column, names=tuple(text(name) for name in names.tolist()))


def entries_of(array: Array, name: str, samples: int) -> list[Any]:
    """Entries of an array (samples,)."""
    if array.shape != (samples,):
        raise InputError(f"{name} has the shape {array.shape}, and the target {samples} samples.")
    entries: list[Any] = array.tolist()
    return entries


def marks(array: Array, name: str) -> NDArray[np.bool_]:
    """Convert marks to bool; raises InputError unless they are booleans or the numbers 0 and 1."""
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise InputError(f"{name} holds {array.dtype} and not only true and false, or 1 and 0.")
    return array.astype(bool)


# -------------------------------------------------------------------------------------------------- writing


def write_table(table: Table, path: Path, writer: str | None = None) -> None:
    """Write a table to an `.npz` or `.safetensors` file, from which `read_table` reads the same table.

    The file appears whole or not at all. `Table.origin` is not written. writer: as for `atomic_write`.

    Raises:
        InputError: if the path has another ending, or the name of a modality has another meaning in a file.
    """
    check_ending(path)
    arrays = arrays_of(table)
    split = {sample: name for name, ids in (table.splits or {}).items() for sample in ids}
    lines = {"id": list(table.ids)} | ({"group": list(table.groups)} if table.groups is not None else {})
    lines |= {SPEAKER: list(table.speakers)} if table.speakers is not None else {}
    lines |= {f"{name}_columns": list(names) for name, names in table.columns.items() if name in table.inputs}
    lines |= {"split": [split.get(sample, "") for sample in table.ids]} if table.splits is not None else {}
    if path.suffix == ".npz":
        with atomic_write(path, writer) as temporary:
            arrays |= {name: np.asarray(entries) for name, entries in lines.items()}
            np.savez(temporary, allow_pickle=False, **arrays)
    else:
        lines |= {"y": arrays.pop("y").tolist()} if arrays["y"].dtype.kind == "U" else {}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        with atomic_write(path, writer) as temporary:
            about = {**lines, ORDER: list(table.inputs)}
            # Not `save_file`: its own temporary file would remain if the process is killed.
            temporary.write_bytes(serialised(tensors, {name: json.dumps(entries) for name, entries in about.items()}))


def check_ending(path: Path) -> None:
    """Raise InputError unless a path ends in .npz or .safetensors."""
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"A table is written to a file .npz or .safetensors, not {path.name!r}.")


def arrays_of(table: Table) -> dict[str, Array]:
    """Arrays of a table by name, with an entry for every sample: zeros where a modality is missing."""
    arrays: dict[str, Array] = {"y": labels_of(table)}
    for name, observed in table.inputs.items():
        if name in (*arrays, *ABOUT, SPEAKER) or any(name.endswith(extra) for extra in EXTRAS):
            raise InputError(f"A modality cannot be called {name!r} in a file: the name means something else.")
        arrays[name] = spread(observed, observed.values.numpy(), len(table))
        if len(observed.indices) < len(table):
            arrays[f"{name}_present"] = spread(observed, np.ones(len(observed.indices), bool), len(table))
        if observed.valid is not None:
            valid = spread(observed, observed.valid.numpy(), len(table))
            lengths = valid.sum(axis=1)
            gaps = not np.array_equal(valid, np.arange(valid.shape[1]) < lengths[:, None])
            arrays[f"{name}_valid" if gaps else f"{name}_lengths"] = valid if gaps else lengths
    return arrays


def labels_of(table: Table) -> Array:
    """Targets of a table as they are stored, (samples,): numbers, or integers or names of classes."""
    target: Array = table.target.numpy()
    if table.regression:
        return target
    names: Array = np.array(table.class_names)
    if all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", name) for name in table.class_names):
        names = names.astype(np.int64)
    return np.asarray(names[target])


def spread(observed: Observed, values: Array, samples: int) -> Array:
    """Array (samples, ...) of the values (n, ...) of the samples that have a modality, and zeros for the others."""
    result = np.zeros((samples, *values.shape[1:]), values.dtype)
    result[observed.indices.numpy()] = values
    return result
