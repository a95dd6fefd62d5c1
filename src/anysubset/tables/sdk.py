"""Tables from the computational sequences of the CMU Multimodal SDK: `.csd` files, which are HDF5.

    /<root>/data/<video>/features    (n, ...)
    /<root>/data/<video>/intervals   (n, 2) in seconds
    /<root>/metadata/<key>           (1,), text in JSON

A sample is an interval of the label file, `video/0`, `video/1`, ... in its order; its steps are the frames that overlap
the interval, or, aligned, the words that do, with the mean of the frames that overlap each. Files that the SDK has
aligned already have `video[k]` in place of a video.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from anysubset.datasets.splits import Splits, checked, read_splits
from anysubset.errors import InputError, one_line
from anysubset.system.input_files import check_file
from anysubset.system.limits import bytes_of, check_unfolding
from anysubset.tables.columns import Options, assemble
from anysubset.tables.labels import sample_id, text
from anysubset.tables.observation import Array, Column, ragged
from anysubset.tables.table import Table
from anysubset.tables.targets import target_of

PAUSE = "sp"
TURN = re.compile(r"(.+)\[(\d+)\]")
METADATA = ("root name", "computational sequence description", "dimension names")


@dataclass(frozen=True)
class Stream:
    """One `.csd` file: intervals (n, 2) in seconds and values (n, ...) by video, and lines for the user."""

    name: str
    intervals: dict[str, Array]
    values: dict[str, Array]
    notes: tuple[str, ...]


def read_sdk(folder: Path, options: Options) -> Table:
    """Read the table of a folder of `.csd` files; `options` name the files of modalities and labels.

    Raises:
        InputError: also if h5py is not installed.
    """
    options.only("folder of .csd files", "modalities", "target", "kind", "column", "words", "split")
    if not options.modalities or not options.target:
        files_in_folder = ", ".join(sorted(path.name for path in folder.glob("*.csd")))
        raise InputError(
            f"holds {files_in_folder}: name modalities and target, as in modalities={{'text': 'words.csd'}}, "
            "target='labels.csd'."
        )
    labels = read_csd(folder / options.target)
    files = options.asked([path.name for path in folder.glob("*.csd")])
    streams = {name: read_csd(folder / file) for name, file in (files or {}).items()}
    words = read_csd(folder / options.words) if options.words else None
    notes = [line for stream in (labels, *streams.values(), *([words] if words else [])) for line in stream.notes]
    for name, stream in streams.items():
        if any(values.dtype.kind not in "biuf" for values in stream.values.values()):
            raise InputError(f"{stream.name} holds words, not numbers of {name!r}: give it as words={stream.name!r}.")
    aligned = all(TURN.fullmatch(video) for video in labels.intervals)
    videos = sorted(labels.intervals, key=video_and_number)
    segments = [(video, row) for video in videos for row in range(len(labels.intervals[video]))]
    ids = [sample_id(video) if aligned else f"{video}/{row}" for video, row in segments]
    rows = [labels.values[video].reshape(len(labels.intervals[video]), -1) for video in videos]
    if len({row.shape[1] for row in rows}) != 1:
        raise InputError(f"{options.target} has no labels, or labels of different widths.")
    # Column 0 is sentiment; emotions follow.
    column = 0 if options.column is None else options.column
    target = target_of(np.concatenate(rows), options.target, options.kind or "regression", column)
    columns = {}
    for name, stream in streams.items():
        if aligned:
            columns[name] = ragged([flat(stream, video) for video, _ in segments], name)
        elif words is None:
            columns[name] = ragged(
                [within(stream, video, *labels.intervals[video][row]) for video, row in segments], name
            )
        else:
            columns[name] = by_words(
                name, stream, words, [(video, *labels.intervals[video][row]) for video, row in segments]
            )
    groups = [sample.rpartition("/")[0] for sample in ids]
    splits = folds(folder / options.split, ids, groups) if options.split else None
    layout = f"CMU SDK, {'aligned' if aligned or words is not None else 'unaligned'}"
    return assemble(layout, ids, columns, target, options, groups, splits, notes)


def video_and_number(video: str) -> tuple[str, int]:
    """Sort key of `video[k]`: the video, then k as a number, so that `[10]` follows `[9]`."""
    turn = TURN.fullmatch(video)
    return (turn[1], int(turn[2])) if turn else (video, 0)


def folds(path: Path, ids: list[str], videos: list[str]) -> Splits:
    """Read splits of videos from a file, and return those of the samples."""
    parts = read_splits(path)
    split_of = {video: split for split, part in parts.items() for video in part}
    splits = {
        split: [sample for sample, video in zip(ids, videos, strict=True) if split_of.get(video) == split]
        for split in parts
    }
    return checked("The folds", splits)


def read_csd(path: Path) -> Stream:
    """Read one computational sequence."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path.name} is HDF5, which needs h5py: pip install h5py.") from None
    if not path.is_file():
        raise InputError(f"{path.name} does not exist.")
    try:
        with h5py.File(path, "r") as file:
            roots = list(file)
            if len(roots) != 1 or "data" not in file[roots[0]]:
                raise InputError(f"{path.name} is no computational sequence: no single key with data below it.")
            entries = file[roots[0]]["data"]
            check_datasets(path, [entries[video][name] for video in entries for name in ("intervals", "features")])
            intervals = {text(video): np.asarray(entries[video]["intervals"]) for video in entries}
            values = {text(video): np.asarray(entries[video]["features"]) for video in entries}
            metadata = list(file[roots[0]].get("metadata", ()))
    except (OSError, LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} cannot be read: damaged, or no .csd file ({one_line(error)}).") from None
    for video in values:
        check_intervals(path.name, video, intervals[video], values[video])
    lacking = [key for key in METADATA if key not in metadata]
    notes = (f"{path.name} lacks metadata: {', '.join(lacking)}.",) if lacking else ()
    # Starts slightly below 0 occur in the public files and stand for 0.
    return Stream(path.name, {video: np.maximum(times, 0) for video, times in intervals.items()}, values, notes)


def check_datasets(path: Path, datasets: list[Any]) -> None:
    """Check what the header of an HDF5 file declares before it is read.

    Args:
        path: of the file.
        datasets: of h5py.

    Raises:
        InputError: if the content lies in other files, or exceeds the limits of memory.
    """
    for dataset in datasets:
        if dataset.external or dataset.is_virtual:
            raise InputError(f"{path.name} takes {dataset.name[:80]} from another file, which is not read.")
    needed = sum(bytes_of(dataset.shape, dataset.dtype.itemsize) for dataset in datasets)
    check_unfolding(path, needed, check_file(path))


def check_intervals(name: str, video: str, intervals: Array, values: Array) -> None:
    """Raise InputError if there is not one interval for each value, or an interval ends before it starts."""
    if intervals.ndim != 2 or intervals.shape[1] != 2 or len(intervals) != len(values):
        shapes = f"{intervals.shape} and {values.shape}"
        raise InputError(f"{name}: intervals and values of {video!r} have the shapes {shapes}.")
    if not (np.isfinite(intervals).all() and (intervals[:, 0] <= intervals[:, 1]).all()):
        raise InputError(f"{name}: intervals of {video!r} end before they start, or are NaN.")


def flat(stream: Stream, video: str) -> Array | None:
    """All steps of a video, (steps, size), or None if the stream lacks it."""
    values = stream.values.get(video)
    return None if values is None else values.reshape(len(values), -1)


def overlapping(intervals: Array, start: float, end: float) -> Array:
    """Which intervals overlap [start, end) in more than a point, (n,) bool; one without length counts if inside."""
    points = (intervals[:, 0] == intervals[:, 1]) & (intervals[:, 0] >= start) & (intervals[:, 0] < end)
    return np.asarray(((intervals[:, 0] < end) & (intervals[:, 1] > start)) | points)


def within(stream: Stream, video: str, start: float, end: float) -> Array | None:
    """Frames of a video that overlap an interval, (steps, size); None if the stream lacks the video."""
    values = flat(stream, video)
    return None if values is None else values[overlapping(stream.intervals[video], start, end)]


def by_words(name: str, stream: Stream, words: Stream, samples: list[tuple[Any, ...]]) -> Column:
    """Align a stream to words: one step for each word but pauses, the mean of the frames that overlap it.

    A word without such frames is a step that is not real.

    Args:
        name: of the modality.
        stream: with the frames.
        words: with the intervals of the words.
        samples: video, start and end in seconds of each sample.
    """
    sequences: list[Array | None] = []
    steps: list[Array] = []
    for video, start, end in samples:
        spoken = words_within(words, video, start, end)
        by_word = [within(stream, video, max(start, first), min(end, last)) for first, last in spoken]
        has_frames = np.array([frames is not None and len(frames) > 0 for frames in by_word], dtype=bool)
        with np.errstate(invalid="ignore"):  # Frames may hold both infinities; they are counted later.
            means = [frames.mean(axis=0) for frames in by_word if frames is not None and len(frames)]
        sequence = np.zeros((len(by_word), *means[0].shape)) if means else None
        if sequence is not None:
            sequence[has_frames] = means
        sequences.append(sequence)
        steps.append(has_frames)
    return ragged(sequences, name, steps)


def words_within(words: Stream, video: str, start: float, end: float) -> Array:
    """Intervals, (n, 2), of the words of a video that overlap an interval; pauses are left out."""
    if video not in words.intervals:
        return np.zeros((0, 2))
    spoken = overlapping(words.intervals[video], start, end)
    values = words.values[video]
    if values.dtype.kind in "SUO":
        spoken &= np.array([text(word) != PAUSE for word in values.reshape(len(values), -1)[:, 0].tolist()], dtype=bool)
    return words.intervals[video][spoken]
