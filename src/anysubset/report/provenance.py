"""What the scores of a run belong to: whether weights or data changed since they were computed.

`scores.csv` holds hashes of the weights and of the samples of each row. Where the files that were scored exist, they
are compared with what `scored.json` records of them; a file is read only if its state on disk changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anysubset.errors import listed
from anysubset.system.fingerprints import read_fingerprints, split_hash
from anysubset.system.run_folder import RunFolder, weights_hash
from anysubset.system.scored_files import changed_files

LISTED = 5  # So many caveats.


def caveats_of(folder: Path, rows: Sequence[Mapping[str, str]], own_dataset: object) -> list[str]:
    """Lines on scores of one data set and split that are older than the weights, or of other data than the training's.

    Empty where the scores belong to the weights and the data, and where an earlier version recorded neither.

    Args:
        folder: of the run.
        rows: of `scores.csv`.
        own_dataset: name of the data set of the run.
    """
    lines = []
    split, dataset = rows[0]["split"], rows[0]["dataset"]
    again = f"anysubset evaluate {folder} --split {split}"
    if dataset != own_dataset:
        again += f" --data.root {dataset}"
    weights, current = stamps(rows, "weights"), weights_hash(folder)
    if current and weights and weights != {current}:
        lines.append(
            f"{folder}: the scores of split {split!r} are older than the weights, which were trained on since. "
            f"Score it again: {again}"
        )
    recorded = (read_fingerprints(RunFolder(folder).data) or {}) if dataset == own_dataset else {}
    if split in recorded and stamps(rows, "data") - {split_hash(recorded[split])}:
        lines.append(
            f"{folder}: the scores of split {split!r} are of other data than those that {RunFolder(folder).data.name} "
            f"recorded in training. Score it again: {again}"
        )
    changed = changed_files(RunFolder(folder).scored, dataset, split)
    if changed:
        lines.append(
            f"{folder}: {listed(map(str, changed))} changed on disk since split {split!r} was scored. "
            f"Score it again: {again}"
        )
    return lines


def stamps(rows: Iterable[Mapping[str, str]], name: str) -> set[str]:
    """The distinct hashes in a column; without the blank of earlier versions."""
    return {row[name] for row in rows} - {""}


def mixed_data(hashes: Mapping[Path, str]) -> list[str]:
    """A line if runs that are compared were scored on samples of the same ids and other values; else empty.

    Args:
        hashes: of the scored samples, by run folder; "" where it is unknown.
    """
    first: dict[str, Path] = {}
    for folder, value in hashes.items():
        if value:
            first.setdefault(value, folder)
    if len(first) < 2:
        return []
    names = " and ".join(map(str, list(first.values())[:2]))
    return [f"{names} were scored on other values of the same samples: compare runs on the same data."]


def first_lines(lines: Sequence[str]) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - LISTED
    return [*lines[:LISTED], f"... and {more} more"] if more > 0 else list(lines)
