"""Splits: which samples are for training, for validation and for the test.

They are read from a JSON file, `{"train": ["patient1", ...], "val": [...], "test": [...]}`, or from text files with one
id on every line.
"""

import random
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from anysubset.datasets.ids import composed
from anysubset.datasets.sheet_text import text_of
from anysubset.errors import InputError, listed
from anysubset.system.input_files import json_of

Splits = dict[str, tuple[str, ...]]
USUAL = ("train", "val", "test")
# Other names of the usual splits, in small letters.
OTHER_NAMES = {
    "train": ("training",),
    "val": ("valid", "validation", "dev", "devel", "development"),
    "test": ("testing",),
}


def read_splits(path: Path) -> Splits:
    """Read ids by split from a JSON file, a folder of text files, or one text file `NAME.txt`.

    Raises:
        InputError: if the file cannot be read, a split is empty, or an id occurs twice.
    """
    if path.is_dir():
        texts = files_of_splits(path)
        if not texts:
            raise InputError(f"{path} holds no splits: no text files such as train.txt, with one id a line.")
        return checked(path, {text.stem: lines_of(text) for text in texts})
    if path.suffix.lower() == ".txt":
        return checked(path, {path.stem: lines_of(path)})
    return checked(path, from_json(path))


def find_splits(root: Path) -> Splits | None:
    """Read the splits beside the patients; None if there are none.

    Tries `splits.json`, then `splits/*.txt`, then `train.txt`, `val.txt` and `test.txt` (or `valid.txt` and other
    usual names), in the folder of patients or beside the CSV manifest `root`.
    """
    paths = splits_beside(root)
    if not paths:
        return None
    if paths[0].stem == "splits":
        return read_splits(paths[0])
    return checked(paths[0].parent, {path.stem: lines_of(path) for path in paths})


def splits_beside(root: Path) -> list[Path]:
    """Paths that `find_splits` reads: `splits.json`, the folder `splits`, or text files of usual names."""
    folder = root if root.is_dir() else root.parent
    if (folder / "splits.json").is_file():
        return [folder / "splits.json"]
    if (folder / "splits").is_dir():
        return [folder / "splits"]
    names = [name for usual in USUAL for name in (usual, *OTHER_NAMES[usual])]
    return [folder / f"{name}.txt" for name in names if (folder / f"{name}.txt").is_file()]


def files_of_splits(path: Path) -> list[Path]:
    """The files that `read_splits` reads for a path."""
    return sorted(text for text in path.glob("*.txt") if not text.name.startswith(".")) if path.is_dir() else [path]


def check_splits(splits: Mapping[str, Collection[str]], ids: Collection[str], noun: str = "patient") -> None:
    """Raise InputError if a split names an unknown id. Samples may be in no split; they are not used.

    Args:
        splits: ids by split.
        ids: of all samples.
        noun: what samples are called in the message.
    """
    existing = set(ids)
    for name, split in splits.items():
        unknown_ids = [sample for sample in split if sample not in existing]
        if unknown_ids:
            ids_and_hint = f"{listed(unknown_ids)}.{other_spelling(unknown_ids[0], existing)}"
            raise InputError(f"Split {name!r} names ids that no {noun} has, {len(unknown_ids)} in all: {ids_and_hint}")


def spelling_key(sample: str) -> str:
    """Key that spellings of one id have in common: without capital letters, leading zeros and decimals.

    >>> spelling_key("P007"), spelling_key("007"), spelling_key("7.0"), spelling_key("a/1")
    ('p007', '7', '7', 'a/1')
    """
    number = re.fullmatch(r"0*(\d+)(\.0+)?", sample.strip())
    return number[1] if number else sample.strip().casefold()


def other_spelling(sample: str, ids: Collection[str]) -> str:
    """Words that name an id of another spelling; empty if there is none."""
    similar = [other for other in ids if spelling_key(other) == spelling_key(sample)]
    return f" The data have {similar[0]!r}: write {sample!r} in the same way." if similar else ""


def lines_of(path: Path) -> list[str]:
    """Ids of a text file, one on every line; blank lines and comments after `#` are ignored."""
    lines = [line.partition("#")[0].strip() for line in text_of(path).splitlines()]
    return [line for line in lines if line]


def from_json(path: Path) -> dict[str, list[str]]:
    """Ids by split of a JSON file, an object of lists of ids."""
    text = text_of(path)
    content: dict[str, list[str]] = json_of(text, str(path))
    wanted = f'{path} must be {{"train": ["id", ...], "val": [...], ...}}'
    if isinstance(content, list) and content and all(isinstance(fold, dict) and "train" in fold for fold in content):
        raise InputError(
            f"{path} holds {len(content)} folds, as nnU-Net writes them: write the one to be used to a file."
        )
    if not isinstance(content, dict) or not content:
        raise InputError(f"{wanted}; it is: {text.strip()[:40]!r}.")
    for name, ids in content.items():
        if not isinstance(ids, list) or not all(isinstance(sample, str) for sample in ids):
            raise InputError(f"{wanted}; {name!r} is not a list of ids in quotes.")
    return content


def usual_name(name: str) -> str:
    """The usual name of a split, without capital letters and spaces around it; other names are returned as they are.

    >>> [usual_name(name) for name in ("Train", "valid", " TEST ", "holdout")]
    ['train', 'val', 'test', 'holdout']
    """
    lowered = name.strip().lower()
    return next((usual for usual in USUAL if lowered in (usual, *OTHER_NAMES[usual])), name)


def checked(path: Path | str, splits: Mapping[str, list[str]]) -> Splits:
    """The splits by their usual names, in the usual order.

    Raises:
        InputError: if a split is empty, two names stand for one split, or an id occurs twice.
    """
    split_of: dict[str, str] = {}
    by_usual_name: dict[str, str] = {}
    for name in splits:
        other = by_usual_name.setdefault(usual_name(name), name)
        if other != name:
            raise InputError(f"{path} has splits {other!r} and {name!r}, which both mean {usual_name(name)!r}.")
    splits = {usual_name(name): [composed(sample) for sample in ids] for name, ids in splits.items()}
    for name, ids in splits.items():
        if not ids:
            raise InputError(f"{path} has an empty split: {name!r} names no id.")
        for sample in ids:
            if split_of.get(sample) == name:
                raise InputError(f"{path} names {sample!r} twice in split {name!r}.")
            if sample in split_of:
                raise InputError(f"{path} has {sample!r} in two splits: {split_of[sample]!r} and {name!r}.")
            split_of[sample] = name
    # Training first and the test last, whatever the order in the file.
    names = [name for name in USUAL if name in splits] + [name for name in splits if name not in USUAL]
    return {name: tuple(splits[name]) for name in names}


def draw_splits(ids: Collection[str], seed: int = 0, groups: Mapping[str, str] | None = None) -> Splits:
    """Draw splits: seven tenths of the groups to train, one to val, two to test, but at least one group each.

    Args:
        ids: of the patients, or scans, to split.
        seed: of the draw.
        groups: group by id, such as the patient of a scan; the ids of a group go to the same split. By default every id
            is a group of its own.

    Raises:
        InputError: for fewer than three groups.
    """
    group_of = {sample: sample for sample in ids} if groups is None else {sample: groups[sample] for sample in ids}
    names = sorted(set(group_of.values()))
    if len(names) < 3:
        kind = "patients" if groups is None else "groups of patients"
        raise InputError(f"{len(names)} {kind} with a label cannot be split into train, val and test; it takes three.")
    shuffled = random.Random(seed).sample(names, len(names))
    val, test = max(1, round(len(names) / 10)), max(1, round(len(names) / 5))
    split_of = dict.fromkeys(names, "train")
    split_of |= dict.fromkeys(shuffled[:val], "val") | dict.fromkeys(shuffled[val : val + test], "test")
    return {name: tuple(sample for sample in sorted(ids) if split_of[group_of[sample]] == name) for name in USUAL}
