"""Recognise DICOM files, which are not read."""

from pathlib import Path

from anysubset.volumes.file_names import first_file


def dicom_line(root: Path) -> str | None:
    """One line on the first DICOM file in a folder or in folders below it; None if there are none."""
    first = first_file(root, is_dicom)
    if first is None:
        return None
    return (
        f"{first} is a DICOM file, which is not read: convert the series of each patient to NIfTI, for example with "
        "`dcm2niix -z y -o <id> DICOM_FOLDER`."
    )


def is_dicom(path: Path) -> bool:
    """True if a file is called like DICOM, or has no ending and begins like it."""
    if path.suffix.lower() in (".dcm", ".dicom", ".ima") or path.name.upper() == "DICOMDIR":
        return True
    # Scanners write names such as IM000001, and names that end in a number: 1.2.840.113619.2.5.
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
