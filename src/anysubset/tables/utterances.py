"""Vectors of utterances in the files of GCNet: a pickle of labels, and a folder of `.npy` files for each modality.

The pickle is a list of seven: {video: [utterance ids]}, {video: [labels]}, {video: [speakers]}, {video: [sentences]},
and the sets of training, validation and test videos. The folder of a modality has `<utterance>.npy` of shape (size,),
(1, size) or (frames, size), or a folder of such files; frames are averaged. No file, or no frame, is a missing
modality.
"""

from pathlib import Path
from typing import Any

import numpy as np

from anysubset.datasets.splits import USUAL, checked
from anysubset.errors import InputError, one_line
from anysubset.tables.columns import Array, Column, Options, assemble, ragged
from anysubset.tables.labels import numbers, samples_in, target_of, text
from anysubset.tables.table import Table


def is_conversations(content: Any) -> bool:
    """Whether a pickle's content has this layout."""
    return isinstance(content, list | tuple) and len(content) == 7 and isinstance(content[0], dict)


def from_conversations(path: Path, content: Any, options: Options) -> Table:
    """The table of a label pickle and of the folders of modalities that `options.modalities` names beside it.

    Utterances keep the order of the pickle, which is that of the conversation.

    Raises:
        InputError: if no folders are named, or anything is faulty.
    """
    options.only("GCNet label pickle", "modalities", "kind")
    if not options.modalities:
        raise InputError(
            "holds labels alone: name the folders of modalities, as in modalities={'audio': 'features/wav2vec'}."
        )
    utterances, labels = content[0], content[1]
    videos = list(utterances)
    if not isinstance(labels, dict) or not videos:
        raise InputError("holds no utterances, or no labels by video.")
    for video in videos:
        found, labelled = (samples_in(each.get(video, []), f"video {text(video)!r}") for each in (utterances, labels))
        if found != labelled:
            raise InputError(f"video {text(video)!r} has {found} utterances and {labelled} labels.")
    names = [(text(video), text(each)) for video in videos for each in utterances[video]]
    ids = [f"{video}/{each.removeprefix(video).lstrip('_') or each}" for video, each in names]
    target = target_of(np.concatenate([numbers(labels[video], "labels").reshape(-1) for video in videos]), "labels")
    check_videos(content[4:])
    owner = {text(video): name for name, part in zip(USUAL, content[4:], strict=True) for video in part}
    of_split = {
        name: [each for each, (video, _) in zip(ids, names, strict=True) if owner.get(video) == name] for name in USUAL
    }
    columns = {}
    folders = [folder for folder in options.modalities.values() if (path.parent / folder).is_dir()]
    for name, folder in (options.asked(folders) or {}).items():
        place = path.parent / folder
        if not place.is_dir():
            raise InputError(f"the folder {place} of {name} is not there.")
        columns[name] = stacked([utterance(place, each) for _, each in names], name)
    groups = [video for video, _ in names]
    return assemble("GCNet utterances", ids, columns, target, options, groups, checked("The file", of_split))


def check_videos(parts: Any) -> None:
    """Refuses splits that are no sets of videos, and a video in two of them."""
    if not all(isinstance(part, set | frozenset | list | tuple) for part in parts):
        raise InputError("has no sets of training, validation and test videos.")
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = sorted(text(video) for video in set(parts[first]) & set(parts[second]))
        if both:
            raise InputError(f"video {both[0]!r} is in two splits: {USUAL[first]!r} and {USUAL[second]!r}.")


def utterance(folder: Path, name: str) -> Array | None:
    """The vector of one utterance, (1, size), or None if it has none."""
    file, frames = folder / f"{name}.npy", folder / name
    files = [file] if file.is_file() else sorted(frames.glob("*.npy")) if frames.is_dir() else []
    arrays = [read_npy(each) for each in files]
    rows = [row for array in arrays for row in np.atleast_2d(array)]
    if len({row.shape for row in rows}) > 1 or any(array.ndim not in (1, 2) for array in arrays):
        raise InputError(f"{folder / name} has frames of different shapes, or of more than one dimension.")
    if not rows:
        return None
    if len(rows) == 1:
        return np.asarray(rows[0][None])
    return np.asarray(np.mean(np.stack(rows), axis=0, keepdims=True, dtype=np.float64))


def read_npy(path: Path) -> Array:
    """The array in a file; objects are never unpickled."""
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read: damaged, or no array ({one_line(error)}).") from None
    return array


def stacked(found: list[Array | None], what: str) -> Column:
    """A column (samples, size) from rows of one width, or None where they are missing."""
    column = ragged(found, what)
    if not column.values.shape[1]:
        raise InputError(f"{what} has no file for any utterance.")
    return Column(column.values[:, 0], np.array([each is not None for each in found]))
