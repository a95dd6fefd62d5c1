"""The segmentation task that the settings describe, on a public data set or on the user's own."""

from dataclasses import dataclass

from anysubset.errors import InputError
from anysubset.experiments.settings import DataSettings, TaskSettings
from anysubset.tasks.segmentation import Segmentation


@dataclass(frozen=True)
class VolumeSet:
    """A public data set: summary, modalities in the order of tables, and regions, outer ones first."""

    summary: str
    modalities: tuple[str, ...] = ()
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()
    skull_stripped: bool = True

    @property
    def asked(self) -> str:
        """Regions and their labels, in one line."""
        return "  ".join(f"{region} {list(labels)}" for region, labels in self.regions)


def segmentation_task(data: DataSettings, task: TaskSettings, public: VolumeSet) -> Segmentation:
    """Task of the settings; modalities and regions that they do not name are those of the public data set.

    Raises InputError if neither names them, or the task refuses a setting.
    """
    regions = dict(public.regions)
    if data.regions is not None:
        regions = {name: tuple(labels) for name, labels in data.regions.items()}
    modalities = public.modalities if data.modalities is None else tuple(data.modalities)
    if not modalities or not regions:
        raise InputError(
            f"Dataset {data.name!r} needs data.modalities and data.regions; `anysubset inspect {data.root}` shows them."
        )
    return Segmentation(
        modalities=modalities,
        regions=regions,
        skull_stripped=public.skull_stripped if data.skull_stripped is None else data.skull_stripped,
        patch=tuple(task.patch),
        pool=task.pool,
        cross_entropy=task.cross_entropy,
        overlap=task.overlap,
        window=task.window,
        mirror=task.mirror,
    )
