"""Files of patients of which only the names matter."""

from pathlib import Path

from anysubset.volumes.patients import find_patients


def touch(root: Path, *names: str) -> None:
    """Create empty files, for tests that read only names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names_by_patient(root: Path) -> dict[str, dict[str, str]]:
    """File names by id and modality; under "label" that of the label."""
    return {
        patient.id: {name: source.path.name for name, source in patient.sources.items()}
        | ({"label": patient.label.path.name} if patient.label else {})
        for patient in find_patients(root)
    }
