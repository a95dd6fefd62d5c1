"""Patients of a CSV manifest: a row per patient, a column per modality."""

import csv
from pathlib import Path

from anysubset.errors import InputError, one_line
from anysubset.volumes.patient import Patient, Source, assemble


def from_manifest(path: Path) -> list[Patient]:
    """Patients of a CSV file with a column `id`, one for every modality, and `label` or `seg`; blank means missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({one_line(error)}).") from None
    header = [name.lower() for name in rows[0]] if rows else []
    if header.count("id") != 1:
        raise InputError(f"{path} needs one column 'id'; its columns are: {', '.join(header) or '(none)'}.")
    patients = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise InputError(f"{path}, row {number} has {len(row)} cells for {len(header)} columns.")
        cells = list(zip(header, row, strict=True))
        patient_id = row[header.index("id")]
        # Masks are written to files named after the id.
        if not patient_id or Path(patient_id).name != patient_id:
            raise InputError(f"{path}, row {number} has the id {patient_id!r}: give a name without slashes.")
        named = [(name, Source(path.parent / cell)) for name, cell in cells if name != "id" and cell]
        for name, source in named:
            if not source.path.is_file():
                raise InputError(f"{path}, row {number}: the {name} file {source.path} does not exist.")
        patients.append(assemble(patient_id, named))
    return patients
