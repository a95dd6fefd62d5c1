"""Notes of `inspect` on grids: those that differ within or between patients, and headers that are hard to believe."""

from collections.abc import Collection
from dataclasses import dataclass, field

from anysubset.volumes.geometry import TOLERANCE, Grid, by, canonical
from anysubset.volumes.images import forms_apart, read_grid, states_orientation
from anysubset.volumes.patient import Patient
from anysubset.volumes.reading import DifferentGridsError, PatientVolumes, read_patient
from anysubset.volumes.working_grid import FINEST, Resampling

SMALLEST, LARGEST = 0.01, 30.0  # In mm: voxels of scans of people, from microscopes to thick slices, lie between these.
RATIO = 1.1  # Spacings that differ by more than this between patients are noted.
DIRECTIONS = ("to the right", "anterior", "superior")


@dataclass
class GridFindings:
    """What the grids of patients are like, as the patients are read.

    different: id -> spacing of each file by modality, of patients whose files have different grids.
    spacings: id -> size of a voxel in mm to the right, anterior and superior.
    unbelievable: id -> such a size that no scan has.
    forms: file -> distance in voxels between its sform and its qform.
    unoriented: files that do not state an orientation.
    """

    different: dict[str, dict[str, str]] = field(default_factory=dict)
    spacings: dict[str, tuple[float, ...]] = field(default_factory=dict)
    unbelievable: dict[str, tuple[float, ...]] = field(default_factory=dict)
    forms: dict[str, float] = field(default_factory=dict)
    unoriented: list[str] = field(default_factory=list)

    def read(self, patient: Patient) -> PatientVolumes:
        """Read a patient, in the finest grid if files have different ones, and look at its grids.

        Raises InputError if the patient is faulty.
        """
        try:
            volumes = read_patient(patient)
        except DifferentGridsError:
            volumes = read_patient(patient, resampling=Resampling(FINEST))
            grids = {name: read_grid(source.path) for name, source in patient.sources.items()}
            if patient.label is not None:
                grids["label"] = read_grid(patient.label.path)
            self.different[patient.id] = {name: by(rounded(grid)) for name, grid in grids.items()}
        self.spacings[patient.id] = rounded(canonical(volumes.grid))
        if min(volumes.grid.spacing) < SMALLEST or max(volumes.grid.spacing) > LARGEST:
            self.unbelievable[patient.id] = rounded(volumes.grid)
        for source in [*patient.sources.values(), *([patient.label] if patient.label is not None else [])]:
            apart = forms_apart(source.path)
            if apart >= TOLERANCE:
                self.forms[source.path.name] = apart
            if not states_orientation(source.path):
                self.unoriented.append(source.path.name)
        return volumes

    def lines(self) -> list[str]:
        """One line for every kind of finding, with the setting that mends it."""
        lines = []
        if self.different:
            patient, spacings = next(iter(self.different.items()))
            sizes = ", ".join(f"{name} {size}" for name, size in spacings.items())
            lines.append(
                f"The files of {patients(self.different)} have different grids ({patient}: {sizes} mm): set "
                f"data.resample to {FINEST}, or to the modality whose grid is to be used."
            )
        sizes_of = zip(DIRECTIONS, zip(*self.spacings.values(), strict=True), strict=False)
        different = [
            f"{min(sizes):.4g} to {max(sizes):.4g} mm {direction}"
            for direction, sizes in sizes_of
            if max(sizes) > RATIO * min(sizes)
        ]
        if different:
            shown = ", ".join(different)
            lines.append(
                f"The size of voxels differs between patients by more than a tenth: {shown}. Set data.spacing to "
                "median, or to three sizes in mm, to resample them to one size."
            )
        if self.unbelievable:
            patient, size = next(iter(self.unbelievable.items()))
            lines.append(
                f"Voxels of {patients(self.unbelievable)} are smaller than {SMALLEST:g} or larger than {LARGEST:g} mm "
                f"({patient}: {by(size)} mm): is the unit of length in the headers right?"
            )
        if self.forms:
            file, apart = next(iter(self.forms.items()))
            lines.append(
                f"sform and qform of {len(self.forms)} files place voxels differently ({file}: up to {apart:.2g} "
                "voxels apart): the sform is used."
            )
        if self.unoriented:
            lines.append(
                f"{len(self.unoriented)} files do not state an orientation, as they are Analyze images or have neither "
                f"sform nor qform ({self.unoriented[0]}): their axes are taken to run to the left, "
                "anterior and superior."
            )
        return lines


def rounded(grid: Grid) -> tuple[float, ...]:
    """Spacing of a grid in mm, to six significant digits."""
    return tuple(float(f"{size:.6g}") for size in grid.spacing)


def patients(ids: Collection[str]) -> str:
    """The number of patients, in words."""
    return "1 patient" if len(ids) == 1 else f"{len(ids)} patients"
