"""Fingerprints of the data of a run, in its `data.json`: what was read for every sample, as hashes.

    {"version": 1, "splits": {"train": {"p01": {"flair": "5f..", "t1": "a0..", "(label)": "77.."}, ..}, ..}}

A part of a sample is a modality, `(label)` or `(target)`, `(group)` or `(speaker)`; a missing modality has no part.
Hashes are of values, not of files or paths: data that were moved, renamed as a whole or compressed again are the same
data.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from anysubset.errors import InputError, listed
from anysubset.system.files import atomic_write
from anysubset.system.run_files import COUNT, FINGERPRINTS, read_object
from anysubset.system.schema import Fields, check

VERSION = 1
# By id, by part: the hash, or "" where it is unknown, as of a file that could not be read.
Fingerprints = Mapping[str, Mapping[str, str]]


def hash_of(*parts: bytes) -> str:
    """BLAKE2b of some bytes, one after the other, 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def split_hash(samples: Fingerprints) -> str:
    """One hash for all samples of a split, without their groups; the order does not matter."""
    lines = [f"{sample} {part} {value}" for sample in samples for part, value in samples[sample].items()]
    return hash_of("\n".join(sorted(line for line in lines if " (group) " not in line)).encode())


def write_fingerprints(path: Path, splits: Mapping[str, Fingerprints], writer: str | None = None) -> None:
    """Write the fingerprints of the splits, by name; the file appears whole. writer: as for `atomic_write`."""
    with atomic_write(path, writer) as temporary:
        text = json.dumps({"version": VERSION, "splits": splits}, separators=(",", ":"), ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_fingerprints(path: Path) -> dict[str, Fingerprints] | None:
    """Read the fingerprints of the splits, by name; None if there is no file, as in a run of an earlier version.

    Raises:
        InputError: if the file is damaged, or of a later version.
    """
    if not os.path.lexists(path):
        return None
    content = read_object(path, Fields({"version": COUNT}))
    if content["version"] > VERSION:
        raise InputError(f"{path} was written by a later version of anysubset (its version is {content['version']}).")
    check(content, FINGERPRINTS, str(path))
    splits: dict[str, Fingerprints] = content["splits"]
    return splits


# ------------------------------------------------------------------------------------------------ differences


def differences(recorded: Mapping[str, Fingerprints], current: Mapping[str, Fingerprints]) -> list[str]:
    """What differs between the recorded data and the current ones, a phrase for each kind, split and part.

    Splits that were not recorded are left out. A hash that is unknown on one side differs from none.

    >>> before = {"train": {"a": {"t1": "1"}, "b": {"t1": "2"}}, "test": {"c": {"t1": "3"}}}
    >>> differences(before, {"train": {"a": {"t1": "3"}, "b": {"t1": "2"}}, "test": {"c": {}}})
    ['t1 of a in train (now that of c in test)', 't1 of c in test is missing now']
    """
    split_of = {sample: split for split, samples in current.items() for sample in samples}
    owners = owners_of(recorded)
    ids: dict[tuple[str, str], list[str]] = {}  # By the words before and after them.
    lines = []
    for split, before in recorded.items():
        now = current.get(split, {})
        for sample, parts in before.items():
            if sample not in now:
                moved = f"is in {split_of[sample]} now" if sample in split_of else "is not there now"
                ids.setdefault(("", f" of {split} {moved}"), []).append(sample)
                continue
            for part, change in changed_parts(parts, now[sample], owners):
                ids.setdefault((f"{part} of ", f" in {split}{change}"), []).append(sample)
        for sample in now:
            if sample not in before:
                ids.setdefault(("", f" is new in {split}"), []).append(sample)
        if set(now) == set(before) and list(now) != list(before):
            lines.append(f"the order of the samples in {split}")
    return [f"{start}{listed(samples)}{end}" for (start, end), samples in ids.items()] + lines


def owners_of(recorded: Mapping[str, Fingerprints]) -> dict[tuple[str, str], str]:
    """The sample, and its split, that a part with a hash belongs to. Samples share targets and groups anyway."""
    return {
        (part, value): f"{sample} in {split}"
        for split, samples in recorded.items()
        for sample, parts in samples.items()
        for part, value in parts.items()
        if value and part not in ("(group)", "(target)")
    }


def changed_parts(
    before: Mapping[str, str], now: Mapping[str, str], owners: Mapping[tuple[str, str], str]
) -> list[tuple[str, str]]:
    """Name of each part of a sample that differs, and how it differs beyond that."""
    changes = []
    for part in dict.fromkeys([*before, *now]):
        name, old, new = part.strip("()"), before.get(part), now.get(part)
        if new is None:
            changes.append((name, " is missing now"))
        elif old is None:
            changes.append((name, " was missing"))
        elif old and new and old != new:
            owner = owners.get((part, new))
            changes.append((name, "" if owner is None else f" (now that of {owner})"))
    return changes
