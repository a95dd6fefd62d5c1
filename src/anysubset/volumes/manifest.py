"""Patients of a manifest: a sheet with a row per patient and a column per modality, whose cells are paths."""

import csv
import io
import re
import unicodedata
from pathlib import Path

from anysubset.datasets import sheet_text
from anysubset.datasets.sheet_text import delimited, text_of
from anysubset.errors import InputError, listed, one_line
from anysubset.volumes.file_names import IMAGES, OTHER_VOLUMES, ending, image_at
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import LABEL, recognised

SHEETS = (".csv", ".tsv")
MISSING = sheet_text.MISSING | {"nil"}
# Names of the columns of ids and labels in other sheets, compared in lower case without "_", "-" and spaces.
IDS = ("id", "subjectid", "participantid", "patientid", "caseid", "subject", "participant", "patient", "case")
LABELS = ("target", "targets", "y")
START = 100_000  # Characters of a sheet in which a path of an image is searched for.


def is_manifest(path: Path) -> bool:
    """True if a sheet holds names of images, so that it is a manifest and not a table."""
    if path.suffix.lower() not in SHEETS or not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(START).replace(b"\0", b"").decode("latin-1")  # Without the zeros of UTF-16.
    endings = "|".join(re.escape(end) for end in sorted((*IMAGES, *OTHER_VOLUMES), key=len, reverse=True))
    return re.search(rf"\w({endings})(?=[\s,;|\"'])", f"{start}\n", re.IGNORECASE) is not None


def from_manifest(path: Path) -> tuple[list[Patient], list[str]]:
    """Patients of a sheet, and lines on columns that are passed over.

    It has a column `id` (or `subject_id` and the like), one for every modality, and `label`, `seg` or `target`. Columns
    without names of images, such as an age, are passed over. A cell that is blank or says NA, null, - or the like means
    that the modality is missing.

    Raises:
        InputError: if the file cannot be read, has no column `id`, or a row is faulty.
    """
    header, rows = sheet_of(path)
    names = [name.lower() for name in header]
    id_column = column_of_ids(path, names)
    columns = {number: name for number, name in enumerate(names) if number != id_column}
    other = [number for number in columns if not holds_images(path, [row[number] for _, row in rows])]
    other = [number for number in other if any(row[number] for _, row in rows)]
    for number in other:
        if recognised(names[number]) and names[number] not in ("label", "labels", "lesion", "tumor", "tumour"):
            first, cell = next((first, row[number]) for first, row in rows if row[number])
            raise InputError(f"{path}, row {first}: the {names[number]} file {cell!r} is not called like an image.")
    patients = []
    for number, row in rows:
        patient_id = row[id_column]
        # Masks are written to files named after the id.
        if not patient_id or Path(patient_id).name != patient_id:
            raise InputError(f"{path}, row {number} has the id {patient_id!r}: give a name without slashes.")
        named = []
        for column, name in columns.items():
            if row[column] and column not in other:
                source = Source(image_at(file_at(path.parent, row[column])))
                if not source.path.is_file():
                    raise InputError(f"{path}, row {number}: the {name} file {source.path} does not exist.")
                if not ending(source.path) and ending(source.path, OTHER_VOLUMES):
                    kind = "is of a kind that is not read: convert it to .nii.gz."
                    raise InputError(f"{path}, row {number}: the {name} file {source.path} {kind}")
                named.append((LABEL if name in LABELS else name, source))
        patient = assemble(patient_id, named)
        if patient.faults:  # Two columns for one modality.
            raise InputError(f"{path}, row {number}: {patient.faults[0]}")
        patients.append(patient)
    passed = [header[number] or f"(column {number + 1})" for number in other]
    owners: dict[Path, set[str]] = {}
    for patient in patients:
        for source in patient.sources.values():
            owners.setdefault(source.path.resolve(), set()).add(patient.id)
    shared = {file: ids for file, ids in owners.items() if len(ids) > 1}
    lines = [] if names[id_column] == "id" else [f"The ids are taken from the column {header[id_column]!r}."]
    lines += [
        f"The label is taken from the column {header[n]!r}." for n in columns if names[n] in LABELS and n not in other
    ]
    lines += [f"Columns that hold no images are passed over: {', '.join(passed)}."] if passed else []
    if shared:
        file, ids = next(iter(shared.items()))
        lines.append(f"{len(shared)} files are of several patients, such as {file.name} of {listed(sorted(ids))}.")
    return patients, lines


def column_of_ids(path: Path, names: list[str]) -> int:
    """Number of the column of ids: `id`, or else the only one with a usual name for it, such as `subject_id`.

    Raises:
        InputError: if there is no such column, or more than one.
    """
    plain = [re.sub("[_ -]", "", name) for name in names]
    numbers = [number for number, name in enumerate(names) if name == "id"]
    numbers = numbers or [number for number, name in enumerate(plain) if name in IDS]
    if len(numbers) != 1:
        shown = listed(names, most=20) or "(none)"
        raise InputError(f"{path} needs one column 'id'; its columns are: {shown}. Call that of the ids 'id'.")
    return numbers[0]


def sheet_of(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header of a sheet, and its rows with their numbers; cells that say that a value is missing are empty."""
    try:
        text = text_of(path)
        body, mark = delimited(text)
        skipped = 1 if body != text else 0
        reader = csv.reader(io.StringIO(body, newline=""), delimiter=mark)
        sheet = [[cell.strip() for cell in row] for row in reader]
    except (InputError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({one_line(error)}).") from None
    header, rows = (sheet[0] if sheet else []), []
    for number, cells in enumerate(sheet[1:], start=2 + skipped):
        row = ["" if cell.lower() in MISSING else cell for cell in cells]
        if not any(row):
            continue
        while len(row) > len(header) and not row[-1]:
            row.pop()
        if len(row) != len(header):
            raise InputError(f"{path}, row {number} has {len(row)} cells for {len(header)} columns.")
        rows.append((number, row))
    return header, rows


def holds_images(path: Path, cells: list[str]) -> bool:
    """True if a column has a cell that is called like an image or another volume, or is the path of a file."""
    return any(
        ending(Path(cell)) or ending(Path(cell), OTHER_VOLUMES) or file_at(path.parent, cell).is_file()
        for cell in cells
        if cell
    )


def file_at(folder: Path, cell: str) -> Path:
    """Path in a cell, relative to the folder of the manifest: also with `~`, backslashes, or decomposed letters."""
    spellings = [cell, cell.replace("\\", "/")]
    spellings += [unicodedata.normalize(form, spelling) for spelling in spellings for form in ("NFC", "NFD")]
    paths = [folder / expanded(spelling) for spelling in spellings]
    return next((path for path in paths if path.exists()), paths[0])


def expanded(cell: str) -> Path:
    """Path with the home folder in place of `~`; as it is if there is no such user."""
    try:
        return Path(cell).expanduser()
    except RuntimeError:
        return Path(cell)
