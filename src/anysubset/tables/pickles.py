"""Tables in the pickles of sentiment analysis, recognised by their content.

MMSA (MOSI, MOSEI, CH-SIMS; aligned or not): {train, valid, test} -> {text, text_bert, audio, vision, id,
regression_labels, ...}, padding at the end. MulT, MFM, GMC and MultiBench: {train, valid, test} -> {text, audio,
vision, labels, id}, padding at the front and no lengths. MAG-BERT: {train, dev, test} -> a list of ((words, vision,
audio), label, segment). GCNet's utterances are in `utterances.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from anysubset.datasets.splits import checked, usual_name
from anysubset.errors import InputError
from anysubset.tables.columns import Options, assemble
from anysubset.tables.labels import numbers, sample_id, samples_in, videos_of
from anysubset.tables.observation import Array, Column, nan_throughout, ragged
from anysubset.tables.steps import from_lengths, padded_side, real_steps, to_the_front
from anysubset.tables.table import Table, shown
from anysubset.tables.targets import labels_in, target_of

SENTIMENT = ("text", "audio", "vision")  # The order of every table.
BERT = 30522  # The vocabulary of bert-base-uncased, larger than that of bert-base-chinese.


def from_pickle(content: Any, options: Options) -> Table:
    """Make a table from the content of a pickle of one of these layouts.

    Raises:
        InputError: if the content has another layout, or is faulty.
    """
    parts = content if isinstance(content, dict) else {}
    parts = {usual_name(str(name)): part for name, part in parts.items()}
    if "train" in parts and all(isinstance(part, list | tuple) for part in parts.values()):
        return from_mag(parts, options)
    if "train" in parts and all(isinstance(part, dict) for part in parts.values()):
        keys = set(parts["train"])
        for name, part in parts.items():
            if set(part) != keys:
                lacking = shown(sorted(map(str, keys ^ set(part))))
                raise InputError(f"splits 'train' and {name!r} do not hold the same: they differ in {lacking}.")
        if "regression_labels" in keys or "classification_labels" in keys:
            return from_mmsa(parts, options)
        if "labels" in keys:
            return from_mult(parts, options)
    held = ", ".join(str(key) for key in list(content)[:8]) if isinstance(content, dict) else type(content).__name__
    raise InputError(
        f"is a pickle of no known layout; it holds: {held}. Known: {{train, valid, test}} of MMSA, MulT, GMC, "
        "MultiBench and MAG-BERT, and GCNet's list of seven."
    )


def from_mmsa(parts: Mapping[str, Mapping[str, Any]], options: Options) -> Table:
    """Make a table from MMSA's layout.

    Lengths are the sums of BERT's mask, or where audio and vision are not aligned, those of the file.
    """
    options.only("MMSA pickle", "modalities", "target", "kind", "column")
    ids, splits = ids_of(parts, "id")
    label = options.target or "regression_labels"
    kind = options.kind or ("regression" if label.startswith("regression") else "classes")
    target = target_of(joined(parts, label, labels_in), label, kind, options.column, ids)
    arrays = {key: joined(parts, key) for key in modalities_of(parts, options).values()}
    mask = from_mask(joined(parts, "text_bert")) if "text_bert" in parts["train"] else None
    columns = {}
    for name, key in modalities_of(parts, options).items():
        values = arrays[key]
        if key == "text_bert":
            assert mask is not None
            columns[name] = Column(values[:, 0], valid=mask, padding="end", vocabulary=BERT)
            continue
        if values.ndim != 3:
            raise InputError(f"{key} has the shape {values.shape}, not (samples, time, size).")
        own = real_steps(values, "end")
        if f"{key}_lengths" in parts["train"]:
            valid = from_lengths(joined(parts, f"{key}_lengths"), len(ids), values.shape[1], f"{key}_lengths")
        elif mask is not None and values.shape[1] == mask.shape[1]:
            # A sample without words is not aligned to words; its own steps that are not zero are real.
            valid = mask if key == "text" else np.where(mask.any(axis=1, keepdims=True), mask, own)
        else:
            valid = own
        columns[name] = Column(values, valid=valid, padding="none" if valid.all() else "end")
    aligned = len({arrays[key].shape[1] for key in arrays if key != "text_bert"}) <= 1
    layout = f"MMSA pickle, {'aligned' if aligned else 'unaligned'}"
    return assemble(layout, ids, columns, target, options, videos_of(ids), splits)


def from_mask(bert: Array) -> Array:
    """Which tokens are real, (samples, time) bool, by the sum of BERT's mask.

    The first zero of the mask cannot mark the end, since a sentence of full length has no zero.
    """
    if bert.ndim != 3 or bert.shape[1] != 3:
        raise InputError(f"text_bert has the shape {bert.shape}, not (samples, 3, time): tokens, mask and segments.")
    mask = np.where(nan_throughout(bert)[:, None], 0, bert[:, 1])
    return from_lengths(mask.sum(axis=1), len(mask), mask.shape[1], "text_bert's masks")


def from_mult(parts: Mapping[str, Mapping[str, Any]], options: Options) -> Table:
    """Make a table from the layout of MulT, MFM, GMC and MultiBench.

    If all modalities have equally many steps, a sample starts at its first word that is not all zero.
    """
    options.only("MulT pickle", "modalities", "target", "kind", "column", "padding")
    ids, splits = ids_of(parts, "id") if "id" in parts["train"] else numbered_ids(parts)
    label = options.target or "labels"
    raw = joined(parts, label, labels_in)
    emotions = raw.ndim == 3 and raw.shape[2] == 2  # One-hot, one row for each emotion, as in IEMOCAP.
    target = target_of(
        raw.argmax(axis=2) if emotions else raw, label, options.kind or ("classes" if emotions else "regression"),
        options.column, ids,
    )  # fmt: skip
    keys = modalities_of(parts, options)
    arrays = {name: joined(parts, key) for name, key in keys.items()}
    for name, values in arrays.items():
        if values.ndim != 3:
            raise InputError(f"{name} has the shape {values.shape}, not (samples, time, size).")
    aligned = "text" in arrays and len({values.shape[1] for values in arrays.values()}) == 1
    columns = {}
    notes = []
    for name, values in arrays.items():
        leader = arrays["text"] if aligned else values
        leader = np.where(nan_throughout(leader)[:, None, None], 0, leader)  # Without words, as if all were zero.
        side = options.padding or padded_side(leader)
        valid = real_steps(leader, side)
        if aligned and side != "none":
            # In a sample without words, a modality starts at its own first step that is not all zero.
            valid = np.where(valid.any(axis=1, keepdims=True), valid, real_steps(values, side))
        if side == "end" and options.padding is None:
            notes.append(f"{name} is padded at the end, where this layout usually has it at the front.")
        if side == "front":
            values, valid = to_the_front(values, valid)
        columns[name] = Column(values, valid=valid, padding=side)
    layout = f"MulT pickle, {'aligned' if aligned else 'unaligned'}"
    return assemble(layout, ids, columns, target, options, videos_of(ids), splits, notes)


def from_mag(parts: Mapping[str, Any], options: Options) -> Table:
    """Make a table from MAG-BERT's layout: sequences without padding; text that consists of words is left out."""
    options.only("MAG-BERT pickle", "modalities", "kind", "column")
    entries = [entry for part in parts.values() for entry in part]
    try:
        ids = [sample_id(segment) for _, _, segment in entries]
        labels = np.stack([numbers(label, "labels").reshape(-1) for _, label, _ in entries])
        streams = [dict(zip(("text", "vision", "audio"), streams, strict=True)) for streams, _, _ in entries]
    except (ValueError, TypeError):
        raise InputError("is a pickle of lists, but not of ((words, vision, audio), label, segment).") from None
    numeric = all(np.asarray(stream["text"]).dtype.kind == "f" for stream in streams)
    available = SENTIMENT if numeric else SENTIMENT[1:]
    notes = [] if numeric else ["text is words here, not numbers, and was left out."]
    columns = {}
    for name, key in (options.asked(available) or {name: name for name in available}).items():
        if key not in available:
            raise InputError(f"has no modality {key!r}; it has: {', '.join(available)}.")
        columns[name] = ragged([matrix(stream[key], key) for stream in streams], key)
    target = target_of(labels, "labels", options.kind or "regression", options.column, ids)
    splits = {}
    start = 0
    for name, part in parts.items():
        splits[name] = ids[start : start + len(part)]
        start += len(part)
    return assemble(
        "MAG-BERT pickle", ids, columns, target, options, videos_of(ids), checked("The file", splits), notes
    )


def matrix(raw: Any, what: str) -> Array:
    """Convert a sequence to an array (steps, size). Raises InputError for other shapes."""
    array = numbers(raw, what)
    if array.ndim != 2:
        raise InputError(f"{what} of a sample has the shape {array.shape}, not (steps, size).")
    return array


# ----------------------------------------------------------------------------------------------------- parts


def modalities_of(parts: Mapping[str, Mapping[str, Any]], options: Options) -> Mapping[str, str]:
    """Key of the array of each modality that the options name; by default those of text, audio and vision in the file.

    Raises:
        InputError: if the file lacks a named key, or has none of the default ones.
    """
    keys = options.asked(parts["train"]) or {name: name for name in SENTIMENT if name in parts["train"]}
    for key in keys.values():
        if key not in parts["train"]:
            raise InputError(f"has no key {key!r}; it has: {', '.join(map(str, parts['train']))}.")
    if not keys:
        raise InputError(f"has none of {', '.join(SENTIMENT)}; it has: {', '.join(map(str, parts['train']))}.")
    return keys


def joined(parts: Mapping[str, Mapping[str, Any]], key: str, read: Callable[[Any, str], Array] = numbers) -> Array:
    """Concatenate the arrays of a key over the splits.

    Args:
        parts: content of each split, by name.
        key: of the arrays.
        read: makes an array of what a split holds: `numbers`, or `labels_in` for numbers or text.

    Raises:
        InputError: if the key is absent, or numbers of samples or shapes differ.
    """
    if key not in parts["train"]:
        raise InputError(f"has no key {key!r}; it has: {', '.join(map(str, parts['train']))}.")
    leader = "id" if "id" in parts["train"] else "labels"
    for name, part in parts.items():
        count, expected = samples_in(part[key], key), samples_in(part[leader], leader)
        if count != expected:
            counts = f"{key} {count}, {leader} {expected}"
            raise InputError(f"split {name!r} has different numbers of samples: {counts}.")
    arrays = [read(part[key], key) for part in parts.values()]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        # Labels may be (samples,) in one split and (samples, 1) in another.
        if any(np.prod(shape) != 1 for shape in shapes):
            raise InputError(f"{key} has other shapes in other splits: {shown(str(array.shape) for array in arrays)}.")
        arrays = [array.reshape(len(array), 1) for array in arrays]
    return np.concatenate(arrays)


def ids_of(parts: Mapping[str, Mapping[str, Any]], key: str) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Ids in the order of the file, and ids by split. Raises InputError if an id is repeated."""
    if key not in parts["train"]:
        raise InputError(f"has no key {key!r}; it has: {', '.join(map(str, parts['train']))}.")
    for part in parts.values():
        samples_in(part[key], key)
    splits = {name: [sample_id(raw) for raw in part[key]] for name, part in parts.items()}
    return [sample for ids in splits.values() for sample in ids], checked("The file", splits)


def numbered_ids(parts: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Ids such as `train-0`, and ids by split, for files without ids; they name no videos."""
    splits = {
        name: [f"{name}-{number}" for number in range(samples_in(part["labels"], "labels"))]
        for name, part in parts.items()
    }
    return [sample for ids in splits.values() for sample in ids], checked("The file", splits)
