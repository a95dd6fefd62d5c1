"""Vectors of utterances in the files of GCNet: a pickle of labels, and a folder of `.npy` files for each modality.

The pickle is a list of seven: {video: [utterance ids]}, {video: [labels]}, {video: [speakers]}, {video: [sentences]},
and the sets of training, validation and test videos. The folder of a modality has `<utterance>.npy` of shape (size,),
(1, size) or (frames, size), or a folder of such files; frames are averaged. No file, or no frame, is a missing
modality.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anysubset.datasets.splits import USUAL, checked
from anysubset.errors import InputError
from anysubset.system.array_file import read_npy
from anysubset.tables.columns import Options, assemble
from anysubset.tables.labels import numbers, samples_in, text
from anysubset.tables.observation import Array, Column, ragged
from anysubset.tables.table import Table
from anysubset.tables.targets import target_of


def is_conversations(content: Any) -> bool:
    """True if the content of a pickle has this layout."""
    return isinstance(content, list | tuple) and len(content) == 7 and isinstance(content[0], dict)


def from_conversations(path: Path, content: Any, options: Options) -> Table:
    """Make a table from a label pickle and the folders of modalities beside it, which `options.modalities` names.

    Utterances are in the order of the pickle, which is that of the conversation.

    Raises:
        InputError: if no folders are named, or a file is faulty.
    """
    options.only("GCNet label pickle", "modalities", "kind")
    if not options.modalities:
        raise InputError(
            "holds labels alone: name the folders of modalities, as in --data.reading.modalities.audio features/audio."
        )
    utterances, labels = content[0], content[1]
    videos = list(utterances)
    if not isinstance(labels, dict) or not videos:
        raise InputError("holds no utterances, or no labels by video.")
    for video in videos:
        spoken, labelled = (
            samples_in(by_video.get(video, []), f"video {text(video)!r}") for by_video in (utterances, labels)
        )
        if spoken != labelled:
            raise InputError(f"video {text(video)!r} has {spoken} utterances and {labelled} labels.")
    names = [(text(video), text(name)) for video in videos for name in utterances[video]]
    ids = [f"{video}/{name.removeprefix(video).lstrip('_') or name}" for video, name in names]
    by_utterance = np.concatenate([numbers(labels[video], "labels").reshape(-1) for video in videos])
    target = target_of(by_utterance, "labels", options.kind)
    check_videos(content[4:])
    split_of = {text(video): split for split, part in zip(USUAL, content[4:], strict=True) for video in part}
    splits = {
        split: [sample for sample, (video, _) in zip(ids, names, strict=True) if split_of.get(video) == split]
        for split in USUAL
    }
    columns = {}
    folders = [folder for folder in options.modalities.values() if (path.parent / folder).is_dir()]
    for name, folder in (options.asked(folders) or {}).items():
        location = path.parent / folder
        if not location.is_dir():
            raise InputError(f"the folder {location} of {name} does not exist.")
        columns[name] = stacked([read_vector(location, utterance) for _, utterance in names], name)
    groups = [video for video, _ in names]
    speakers = speakers_of(content[2], utterances)
    by_split = checked("The file", splits)
    return assemble("GCNet utterances", ids, columns, target, options, groups, by_split, speakers=speakers)


def speakers_of(speakers: Any, utterances: Mapping[Any, Any]) -> list[str] | None:
    """Who speaks in each utterance, in the order of the videos; None if the file does not say.

    Args:
        speakers: names or numbers by video.
        utterances: ids by video.

    Raises:
        InputError: if a video has another number of speakers than of utterances.
    """
    if not isinstance(speakers, dict) or not set(utterances) <= set(speakers):
        return None
    for video, ids in utterances.items():
        count = samples_in(speakers[video], f"video {text(video)!r}")
        if count != len(ids):
            raise InputError(f"video {text(video)!r} has {len(ids)} utterances and {count} entries of speakers.")
    return [text(name) for video in utterances for name in speakers[video]]


def check_videos(parts: Any) -> None:
    """Raise InputError if splits are no sets of videos, or a video is in two of them."""
    if not all(isinstance(part, set | frozenset | list | tuple) for part in parts):
        raise InputError("has no sets of training, validation and test videos.")
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = sorted(text(video) for video in set(parts[first]) & set(parts[second]))
        if both:
            raise InputError(f"video {both[0]!r} is in two splits: {USUAL[first]!r} and {USUAL[second]!r}.")


def read_vector(folder: Path, name: str) -> Array | None:
    """Read the vector of one utterance, (1, size); None if it has no file."""
    file, frames = folder / f"{name}.npy", folder / name
    files = [file] if file.is_file() else sorted(frames.glob("*.npy")) if frames.is_dir() else []
    arrays = [read_npy(path) for path in files]
    rows = [row for array in arrays for row in np.atleast_2d(array)]
    if len({row.shape for row in rows}) > 1 or any(array.ndim not in (1, 2) for array in arrays):
        raise InputError(f"{folder / name} has frames of different shapes, or of more than one dimension.")
    if not rows:
        return None
    if len(rows) == 1:
        return np.asarray(rows[0][None])
    return np.asarray(np.mean(np.stack(rows), axis=0, keepdims=True, dtype=np.float64))


def stacked(vectors: list[Array | None], what: str) -> Column:
    """Make a modality from vectors (1, size), None where they are missing.

    Raises:
        InputError: if all are missing, or they differ in size.
    """
    column = ragged(vectors, what)
    if not column.values.shape[1]:
        raise InputError(f"{what} has no file for any utterance.")
    return Column(column.values[:, 0], np.array([vector is not None for vector in vectors]))
