"""The files that the scores of a run were computed from, in its `scored.json`, so that a report can see their changes.

    {"brats": {"test": {"/data/p01/p01_t1.nii.gz": {"hash": "5f..", "state": "8123 .."}, ..}}}

Keys are the data set and the split as in `scores.csv`. The state is size, inode, time of modification and time of
change (in ns). A file in another state is read, and differs if its hash does.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import filelock

from anysubset.system.files import atomic_write
from anysubset.system.run_files import SCORED, read_object
from anysubset.system.written import content_hash


def record_files(path: Path, dataset: str, split: str, files: Iterable[Path]) -> None:
    """Write the files that a split was scored from; those of other data sets and splits stay.

    Args:
        path: of `scored.json`.
        dataset: name of the data set in `scores.csv`.
        split: that was scored.
        files: that were read; those that do not exist are left out.
    """
    entries = {
        str(file.resolve()): {"hash": content_hash(file), "state": state_of(file)} for file in files if file.is_file()
    }
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        recorded = read_object(path, SCORED)
        recorded = {**recorded, dataset: {**recorded.get(dataset, {}), split: entries}}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(recorded, indent=0) + "\n", encoding="utf-8")


def recorded_splits(path: Path, dataset: str) -> set[str]:
    """The splits of a data set whose files are recorded, which is the last step of scoring them.

    path: of `scored.json`. dataset: name of the data set in `scores.csv`.

    Raises:
        InputError: if `scored.json` is damaged.
    """
    return set(read_object(path, SCORED).get(dataset, {}))


def changed_files(path: Path, dataset: str, split: str) -> list[Path]:
    """The files that changed or vanished since a split was scored from them.

    Empty if nothing is recorded, or none of the files exists here, as on another machine.

    Args:
        path: of `scored.json`.
        dataset: name of the data set in `scores.csv`.
        split: that was scored.

    Raises:
        InputError: if `scored.json` is damaged.
    """
    entries = {Path(name): entry for name, entry in read_object(path, SCORED).get(dataset, {}).get(split, {}).items()}
    if not any(file.is_file() for file in entries):
        return []
    return [file for file, entry in entries.items() if differs(file, entry["state"], entry["hash"])]


def differs(file: Path, state: str, recorded: str) -> bool:
    """True if a file does not exist, or has another state and another content than was recorded.

    A device or FIFO, which would be read without end, counts as no file.
    """
    try:
        if not file.is_file():
            return True
        return state_of(file) != state and content_hash(file) != recorded
    except (OSError, ValueError):  # The latter for a name that no file can have.
        return True


def state_of(file: Path) -> str:
    """Size, inode, and times of modification and change in ns: equal only if nobody wrote or exchanged the file."""
    state = file.stat()
    return f"{state.st_size} {state.st_ino} {state.st_mtime_ns} {state.st_ctime_ns}"
