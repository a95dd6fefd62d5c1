"""The files of a patient, by modality. A missing modality has no key."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anysubset.errors import InputError
from anysubset.volumes.spellings import LABEL, SPELLINGS, modalities_in_order


@dataclass(frozen=True)
class Source:
    """File of a volume, and its channel (from 0) if the file is 4-D."""

    path: Path
    channel: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.channel is None else f"Channel {self.channel} of {self.path}"


@dataclass(frozen=True)
class Patient:
    """Files of one patient, by modality; a missing modality has no key in `sources`."""

    id: str
    sources: dict[str, Source]
    label: Source | None


def assemble(patient_id: str, named: Iterable[tuple[str, Source]]) -> Patient:
    """Patient from pairs of a modality's name, in any spelling, and its source; one may be the label."""
    sources: dict[str, Source] = {}
    for spelled, source in named:
        name = SPELLINGS.get(spelled.lower(), spelled.lower())
        # "+" joins the names of a scenario, and torch does not allow a dot in a module's name.
        if not re.fullmatch(r"[\w -]+", name):
            raise InputError(f"{source} gives the modality name {name!r}: use letters, digits, _ and - only.")
        if name in sources:
            raise InputError(f"Patient {patient_id!r} has {name} twice: {sources[name]} and {source}.")
        sources[name] = source
    label = sources.pop(LABEL, None)
    return Patient(patient_id, {name: sources[name] for name in modalities_in_order(sources)}, label)
